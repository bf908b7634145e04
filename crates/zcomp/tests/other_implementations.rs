//! Each format against somebody else's code, both ways: liblzo2 and lzokay, lz4_flex, ruzstd, zlib-rs.

use zcomp::{Context, PAGE_SIZE, Page};

mod common;
use common::liblzo2::Liblzo2;

/// More than any compressor makes of a page.
const ROOM: usize = 2 * PAGE_SIZE;
/// What a zstd frame begins with elsewhere; ours leave it out.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

fn pages() -> Vec<(String, Page)> {
    common::all_generated(40).chain(common::real::pages(200)).collect()
}

fn ours(context: &mut dyn Context, page: &Page) -> Vec<u8> {
    let mut out = vec![0; ROOM];
    let len = context.compress(page, &mut out).unwrap();
    out.truncate(len);
    out
}

fn check(which: &str, context: &mut dyn Context, theirs: &[u8], page: &Page) {
    let mut back = [!page[0]; PAGE_SIZE];
    assert_eq!(context.decompress(theirs, &mut back), Ok(()), "{which}");
    assert!(back == *page, "{which}");
}

#[test]
fn lzo_and_liblzo2() {
    let Some(mut library) = Liblzo2::open() else {
        undo::need::skip("lzo_and_liblzo2", "liblzo2.so.2 is not installed (Debian: liblzo2-2)");
        return;
    };
    let (mut lzo, mut rle) = (common::context("lzo"), common::context("lzo-rle"));
    let (mut size, mut library_size) = (0, 0);
    for (which, page) in pages() {
        let stream = ours(lzo.as_mut(), &page);
        let mut back = [!page[0]; PAGE_SIZE];
        assert_eq!(library.decompress(&stream, &mut back), Ok(PAGE_SIZE), "{which}");
        assert!(back == page, "{which}");
        let mut out = [0; ROOM];
        let len = library.compress(&page, &mut out);
        check(&which, lzo.as_mut(), &out[..len], &page);
        check(&which, rle.as_mut(), &out[..len], &page);
        size += stream.len().min(PAGE_SIZE);
        library_size += len.min(PAGE_SIZE);
    }
    assert!(size * 100 <= library_size * 101, "{size} bytes where liblzo2 makes {library_size}");
}

/// What liblzo2 accepts of damaged streams we accept with the same result, and what it refuses we refuse.
#[test]
fn lzo_and_liblzo2_agree_on_damage() {
    let Some(mut library) = Liblzo2::open() else {
        undo::need::skip(
            "lzo_and_liblzo2_agree_on_damage",
            "liblzo2.so.2 is not installed (Debian: liblzo2-2)",
        );
        return;
    };
    let mut random = common::Random(5);
    let mut context = common::context("lzo");
    let mut accepted = 0;
    for (which, page) in common::all_generated(20) {
        let mut out = [0; ROOM];
        let len = library.compress(&page, &mut out);
        for round in 0..200 {
            let mut bad = out[..len].to_vec();
            for _ in 0..=random.below(2) {
                let at = if round % 2 == 0 { random.below(len) } else { random.below(len.min(24)) };
                bad[at] = random.byte();
            }
            // liblzo2 knows no version 1, and takes any length and any S bits at the end, where they mean nothing.
            if bad.starts_with(&[17, 1]) || !bad.ends_with(&[17, 0, 0]) {
                continue;
            }
            let (mut one, mut other) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
            let theirs = library.decompress(&bad, &mut one) == Ok(PAGE_SIZE);
            let ours = context.decompress(&bad, &mut other).is_ok();
            assert_eq!(ours, theirs, "{which}: {bad:?}");
            assert!(!ours || one == other, "{which}: {bad:?}");
            accepted += u32::from(ours);
        }
    }
    assert!(accepted > 100, "only {accepted} damaged streams were whole: too few to compare");
}

#[test]
fn lzo_and_lzokay() {
    let mut context = common::context("lzo");
    for (which, page) in pages() {
        let mut back = [!page[0]; PAGE_SIZE];
        let stream = ours(context.as_mut(), &page);
        assert_eq!(lzokay::decompress::decompress(&stream, &mut back), Ok(PAGE_SIZE), "{which}");
        assert!(back == page, "{which}");
        // It makes copies of two and three bytes, which liblzo2's LZO1X-1 does not.
        check(&which, context.as_mut(), &lzokay::compress::compress(&page).unwrap(), &page);
    }
}

/// Every instruction of lzo-rle, taken apart as the kernel's description of the stream says. No library but the kernel reads
/// version 1.
#[test]
fn lzo_rle_as_described() {
    let mut context = common::context("lzo-rle");
    let mut runs = 0;
    for (which, page) in pages() {
        let stream = ours(context.as_mut(), &page);
        let mut back = Vec::new();
        runs += as_described(&stream, &mut back);
        assert!(back == page, "{which}");
    }
    assert!(runs > 100, "only {runs} runs of zeros");
}

/// Decodes a good stream of version 1, slowly and step by step; how many runs of zeros it had. Panics on any other.
fn as_described(stream: &[u8], page: &mut Vec<u8>) -> u32 {
    let mut runs = 0;
    assert_eq!(stream[..2], [17, 1]);
    let mut rest = stream[2..].iter().map(|&byte| usize::from(byte)).peekable();
    let mut state = 0;
    if let Some(first) = rest.next_if(|&first| first > 17) {
        let count = first - 17;
        (0..count).for_each(|_| page.push(u8::try_from(rest.next().unwrap()).unwrap()));
        state = count.min(4);
    }
    loop {
        let byte = rest.next().unwrap();
        let length = |mask: usize, rest: &mut dyn Iterator<Item = usize>| {
            if byte & mask > 0 {
                return byte & mask;
            }
            let mut sum = mask;
            loop {
                match rest.next().unwrap() {
                    0 => sum += 255,
                    last => return sum + last,
                }
            }
        };
        let (len, distance, after);
        match byte {
            0..16 if state == 0 => {
                let count = 3 + length(15, &mut rest);
                (0..count).for_each(|_| page.push(u8::try_from(rest.next().unwrap()).unwrap()));
                state = 4;
                continue;
            }
            0..16 => {
                let far = rest.next().unwrap() << 2 | byte >> 2;
                (len, distance) = if state == 4 { (3, far + 2049) } else { (2, far + 1) };
                after = byte & 3;
            }
            16..32 => {
                let count = byte & 7;
                let low = rest.next().unwrap();
                let high = rest.next().unwrap();
                if byte == 17 && (low, high) == (0, 0) {
                    assert_eq!(rest.next(), None);
                    return runs;
                }
                assert!(
                    byte & 8 != 0 && low & 0xfc == 0xfc && high == 0xff,
                    "a page has no copy from 16 KiB back"
                );
                let zeros = (rest.next().unwrap() << 3 | count) + 4;
                page.resize(page.len() + zeros, 0);
                runs += 1;
                state = low & 3;
                (0..state).for_each(|_| page.push(u8::try_from(rest.next().unwrap()).unwrap()));
                continue;
            }
            32..64 => {
                len = 2 + length(31, &mut rest);
                let pair = rest.next().unwrap() | rest.next().unwrap() << 8;
                (distance, after) = ((pair >> 2) + 1, pair & 3);
            }
            _ => {
                len = if byte < 128 { 3 + (byte >> 5 & 1) } else { 5 + (byte >> 5 & 3) };
                distance = (rest.next().unwrap() << 3 | byte >> 2 & 7) + 1;
                after = byte & 3;
            }
        }
        (0..len).for_each(|_| page.push(page[page.len() - distance]));
        (0..after).for_each(|_| page.push(u8::try_from(rest.next().unwrap()).unwrap()));
        state = after;
    }
}

#[test]
fn lz4_and_lz4_flex() {
    for name in ["lz4", "lz4(acceleration=8)", "lz4hc", "lz4hc(level=2)"] {
        let mut context = common::context(name);
        for (which, page) in pages() {
            let mut back = [!page[0]; PAGE_SIZE];
            let stream = ours(context.as_mut(), &page);
            assert_eq!(
                lz4_flex::block::decompress_into(&stream, &mut back).ok(),
                Some(PAGE_SIZE),
                "{name}: {which}"
            );
            assert!(back == page, "{name}: {which}");
            check(&which, context.as_mut(), &lz4_flex::block::compress(&page), &page);
        }
    }
}

#[test]
fn zstd_and_ruzstd() {
    for name in ["zstd", "zstd(level=-5)", "zstd(level=19)"] {
        let mut context = common::context(name);
        let mut decoder = ruzstd::decoding::FrameDecoder::new();
        for (which, page) in pages() {
            let mut frame = ZSTD_MAGIC.to_vec();
            frame.extend(ours(context.as_mut(), &page));
            let mut back = [!page[0]; PAGE_SIZE];
            assert_eq!(decoder.decode_all(&frame, &mut back).unwrap(), PAGE_SIZE, "{name}: {which}");
            assert!(back == page, "{name}: {which}");
            let theirs =
                ruzstd::encoding::compress_to_vec(&page[..], ruzstd::encoding::CompressionLevel::Fastest);
            let theirs = theirs.strip_prefix(&ZSTD_MAGIC).unwrap();
            check(&which, context.as_mut(), theirs, &page);
        }
    }
}

#[test]
fn deflate_and_zlib() {
    for name in ["deflate", "deflate(level=1)", "deflate(level=12)"] {
        let mut context = common::context(name);
        for (which, page) in pages() {
            let mut back = [!page[0]; PAGE_SIZE];
            let mut inflate = flate2::Decompress::new(false);
            let stream = ours(context.as_mut(), &page);
            let status = inflate.decompress(&stream, &mut back, flate2::FlushDecompress::Finish).unwrap();
            assert_eq!((status, inflate.total_out()), (flate2::Status::StreamEnd, 4096), "{name}: {which}");
            assert!(back == page, "{name}: {which}");
            let mut theirs = Vec::with_capacity(ROOM);
            flate2::Compress::new(flate2::Compression::new(6), false)
                .compress_vec(&page, &mut theirs, flate2::FlushCompress::Finish)
                .unwrap();
            check(&which, context.as_mut(), &theirs, &page);
        }
    }
}
