//! The codec `weft` against a decoder written from docs/weft.md alone, and its two twins against each other.

use zcomp::{Context, PAGE_SIZE, Page};

mod common;

use common::Random;

/// A word's tag as the document has it: words back, or that a byte says so, or none; and the kept bytes.
enum Like {
    Zero,
    Back(usize),
    Earlier,
}

fn tag(number: u8) -> (Like, std::ops::Range<usize>) {
    match number {
        0 => (Like::Zero, 0..0),
        1 => (Like::Back(1), 0..0),
        2 => (Like::Back(2), 0..0),
        3 => (Like::Earlier, 0..0),
        4 => (Like::Earlier, 0..1),
        5 => (Like::Earlier, 0..2),
        6 => (Like::Zero, 0..2),
        7 => (Like::Back(1), 0..2),
        8 => (Like::Back(2), 0..2),
        9 => (Like::Earlier, 4..6),
        10 => (Like::Earlier, 4..8),
        11 => (Like::Back(2), 4..8),
        12 => (Like::Zero, 0..5),
        13 => (Like::Back(1), 0..6),
        14 => (Like::Back(2), 0..7),
        _ => (Like::Zero, 0..8),
    }
}

/// The same of the other mode: no other bytes, those as far back as the last ones, or those as far back as a number says.
enum Told {
    Zero,
    Same,
    New,
}

fn bytes_tag(number: u8) -> (Told, std::ops::Range<usize>) {
    match number {
        0 => (Told::Zero, 0..0),
        1 => (Told::Same, 0..0),
        2 => (Told::New, 0..0),
        3 => (Told::New, 0..4),
        4 => (Told::New, 4..8),
        5 => (Told::New, 0..2),
        6 => (Told::New, 5..8),
        7 => (Told::New, 0..3),
        8 => (Told::New, 2..4),
        9 => (Told::New, 7..8),
        10 => (Told::Same, 5..8),
        11 => (Told::Same, 0..2),
        12 => (Told::Same, 2..8),
        13 => (Told::Same, 7..8),
        14 => (Told::Zero, 0..1),
        _ => (Told::Zero, 0..8),
    }
}

/// Takes the first `count` bytes off.
fn take<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(taken)
}

/// The tags of all words.
fn tags(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let same = take(rest, 8)?.to_vec();
    let mut tags = Vec::new();
    let mut group = vec![0; 8];
    for number in 0..64 {
        if same[number / 8] >> (number % 8) & 1 == 0 {
            group = take(rest, 4)?.iter().flat_map(|pair| [pair & 15, pair >> 4]).collect();
        }
        tags.extend_from_slice(&group);
    }
    Some(tags)
}

/// The page of a stream, one thing at a time.
fn reference(stream: &[u8]) -> Option<Vec<u8>> {
    let (mode, mut rest) = stream.split_first()?;
    let mut page = Vec::new();
    match mode {
        0 => {
            let tags = tags(&mut rest)?;
            let far = tags.iter().filter(|&&number| matches!(tag(number).0, Like::Earlier)).count();
            let mut distances = take(&mut rest, far)?.iter();
            for number in tags {
                let (like, kept) = tag(number);
                let back = match like {
                    Like::Zero => None,
                    Like::Back(words) => Some(words),
                    Like::Earlier => Some(usize::from(*distances.next()?) + 1),
                };
                let mut word = match back {
                    None => vec![0; 8],
                    Some(words) => {
                        let from = page.len().checked_sub(8 * words)?;
                        page[from..from + 8].to_vec()
                    }
                };
                word[kept.clone()].copy_from_slice(take(&mut rest, kept.len())?);
                page.extend(word);
            }
        }
        1 => {
            let tags = tags(&mut rest)?;
            let far = tags.iter().filter(|&&number| matches!(bytes_tag(number).0, Told::New)).count();
            let low = take(&mut rest, far)?;
            let high = take(&mut rest, far.div_ceil(2))?;
            let mut distances = (0..far).map(|at| {
                let high = if at % 2 == 0 { high[at / 2] % 16 } else { high[at / 2] / 16 };
                usize::from(low[at]) + 256 * usize::from(high)
            });
            let mut distance = 0;
            for number in tags {
                let (told, kept) = bytes_tag(number);
                if matches!(told, Told::New) {
                    distance = distances.next()?;
                }
                let mut word = match told {
                    Told::Zero => vec![0; 8],
                    Told::Same | Told::New => {
                        let from = page.len().checked_sub(distance)?;
                        // All of it from before the 64 bytes that the word is one of.
                        page[..page.len() / 64 * 64].get(from..from + 8)?.to_vec()
                    }
                };
                word[kept.clone()].copy_from_slice(take(&mut rest, kept.len())?);
                page.extend(word);
            }
        }
        _ => return None,
    }
    (page.len() == PAGE_SIZE && rest.is_empty()).then_some(page)
}

fn twins() -> [Box<dyn Context>; 2] {
    ["weft", "weft(simd=0)"].map(common::context)
}

/// What a context makes of a stream.
fn decoded(context: &mut dyn Context, stream: &[u8]) -> Option<Vec<u8>> {
    let mut page = [0x5a; PAGE_SIZE];
    context.decompress(stream, &mut page).is_ok().then(|| page.to_vec())
}

fn compressed(context: &mut dyn Context, page: &Page) -> Vec<u8> {
    let mut out = [0; 2 * PAGE_SIZE];
    let len = context.compress(page, &mut out).expect("there is room for any page");
    out[..len].to_vec()
}

/// Generated and real pages, and pages of words with every relation that a tag is for.
fn pages() -> Vec<(String, Page)> {
    let mut pages: Vec<_> = common::all_generated(if cfg!(debug_assertions) { 40 } else { 400 }).collect();
    pages.extend(common::real::pages(200));
    let mut random = Random(7);
    for number in 0..300 {
        let mut words = [0u64; PAGE_SIZE / 8];
        for at in 0..words.len() {
            let like = match random.below(5) {
                0 => 0,
                1 => words[at.saturating_sub(1)],
                2 => words[at.saturating_sub(2)],
                // Also farther than a byte can say.
                _ => words[random.below(at + 1)],
            };
            let kept = match random.below(24) {
                number @ 0..16 => tag(u8::try_from(number).expect("a tag")).1,
                _ => 0..0,
            };
            let mut word = like.to_le_bytes();
            word[kept].fill_with(|| random.byte());
            words[at] = u64::from_le_bytes(word);
        }
        let mut page = [0; PAGE_SIZE];
        page.as_chunks_mut().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_le_bytes());
        pages.push((format!("words {number}"), page));
    }
    pages
}

#[test]
fn the_twins_make_the_same_bytes_and_the_reference_reads_them() {
    let [mut fast, mut portable] = twins();
    let mut modes = [0, 0];
    for (name, page) in pages() {
        let stream = compressed(fast.as_mut(), &page);
        assert!(stream == compressed(portable.as_mut(), &page), "{name}: the twins differ");
        modes[usize::from(stream[0])] += 1;
        assert!(reference(&stream).is_some_and(|back| back == page), "{name}: the reference");
        for context in [&mut fast, &mut portable] {
            assert!(decoded(context.as_mut(), &stream).is_some_and(|back| back == page), "{name}");
        }
    }
    assert!(modes.iter().all(|&count| count > 20), "{modes:?}: both modes have pages");
}

/// Damaged streams, and streams that no encoder makes: all three decoders give the same page, or none.
#[test]
fn all_decoders_agree_on_any_stream() {
    let [mut fast, mut portable] = twins();
    let mut random = Random(3);
    let streams: Vec<_> = pages().iter().map(|(_, page)| compressed(fast.as_mut(), page)).collect();
    let mut good = 0;
    for round in 0..if cfg!(debug_assertions) { 20_000 } else { 200_000 } {
        let stream = match round % 4 {
            0 => made_up(&mut random),
            _ => {
                let mut stream = streams[random.below(streams.len())].clone();
                for _ in 0..=random.below(3) {
                    let at = random.below(stream.len());
                    match random.below(8) {
                        0 => stream.truncate(at.max(1)),
                        1 => stream.insert(at, random.byte()),
                        2 => drop((stream.len() > 1).then(|| stream.remove(at))),
                        _ => stream[at] ^= random.byte(),
                    }
                }
                stream
            }
        };
        let expected = reference(&stream);
        good += u32::from(expected.is_some());
        for context in [&mut fast, &mut portable] {
            assert!(decoded(context.as_mut(), &stream) == expected, "round {round}: {} bytes", stream.len());
        }
    }
    assert!(good > 1000, "{good} streams were good");
}

/// A stream with the right number of bytes for random tags or records; mostly it has a distance that goes too far back.
fn made_up(random: &mut Random) -> Vec<u8> {
    let mode = random.below(2);
    let mut stream = vec![u8::try_from(mode).expect("0 or 1")];
    // At first only tags that need no other word, so that some are good: of one group, or for bytes of eight words.
    let alone: &[u8] = if mode == 0 { &[0x00, 0x66, 0xcc, 0xff, 0x6c] } else { &[0x00, 0xfe, 0xee, 0xff] };
    let first: Vec<u8> = (0..4).map(|_| alone[random.below(alone.len())]).collect();
    let mut groups = vec![first];
    let same = random.next() & random.next() & !1;
    for number in 1..64 {
        if same >> number & 1 == 0 {
            let mut group: Vec<u8> = (0..4).map(|_| random.byte()).collect();
            if mode == 1 && number == 1 {
                // There is a distance from here on.
                group[0] = group[0] & 0xf0 | 2;
            }
            groups.push(group);
        } else {
            groups.push(groups[number - 1].clone());
        }
    }
    stream.extend(same.to_le_bytes());
    stream
        .extend(groups.iter().enumerate().filter(|(at, _)| same >> at & 1 == 0).flat_map(|(_, group)| group));
    let tags: Vec<u8> = groups.iter().flatten().flat_map(|pair| [pair & 15, pair >> 4]).collect();
    let kept: usize = if mode == 0 {
        for (at, &number) in tags.iter().enumerate() {
            if matches!(tag(number).0, Like::Earlier) {
                let far = if random.below(300) == 0 { 256 } else { at.min(256) };
                stream.push(u8::try_from(random.below(far)).expect("below 256"));
            }
        }
        tags.iter().map(|&number| tag(number).1.len()).sum()
    } else {
        let far = tags.iter().enumerate().filter(|(_, number)| matches!(bytes_tag(**number).0, Told::New));
        let distances: Vec<usize> = far
            .map(|(at, _)| match random.below(300) {
                0 => random.below(4096),
                // At least 64, which is good for all words of a group.
                number if number % 3 == 0 => 64 + random.below((8 * at).saturating_sub(64).min(80) + 1),
                _ => 64 + random.below((8 * at).saturating_sub(64) + 1),
            })
            .collect();
        stream.extend(distances.iter().map(|distance| distance.to_le_bytes()[0]));
        stream.extend(distances.chunks(2).map(|pair| {
            let mut high =
                |at: usize| pair.get(at).map_or(random.byte(), |distance| distance.to_le_bytes()[1]);
            high(0) & 15 | high(1) << 4
        }));
        tags.iter().map(|&number| bytes_tag(number).1.len()).sum()
    };
    stream.extend((0..kept).map(|_| random.byte()));
    stream
}

/// Digests between headers, as a sort of a database holds them: no byte repeats for long, but a third of the words do.
#[test]
fn noise_between_words_gets_smaller() {
    let mut random = Random(11);
    let mut page = [0; PAGE_SIZE];
    for record in page.as_chunks_mut::<56>().0 {
        record[..8].copy_from_slice(&0x40_0000_0035_u64.to_le_bytes());
        record[8..16].copy_from_slice(&(0x5600_1234_0000 + (random.next() % 4096) * 56).to_le_bytes());
        record[16..24].copy_from_slice(&[36, 0, 0, 0, 1, 0, 2, 24]);
        record[24..].fill_with(|| b"0123456789abcdef"[random.below(16)]);
    }
    for context in &mut twins() {
        let len = compressed(context.as_mut(), &page).len();
        assert!(len < PAGE_SIZE * 3 / 4, "{len}");
    }
}

#[test]
fn a_page_of_zeros_takes_nine_bytes() {
    for context in &mut twins() {
        assert_eq!(
            compressed(context.as_mut(), &[0; PAGE_SIZE]),
            [0, 255, 255, 255, 255, 255, 255, 255, 255]
        );
    }
}
