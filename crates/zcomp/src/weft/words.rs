//! The mode for pages made of words: 512 of 64 bits, each told by an earlier one and the bytes that differ.
//!
//! A word has a tag of four bits ([`TAGS`]): which earlier word it is like (none, the last, the last but one, or one up to 256
//! before, then with a byte that says how far), and which of its bytes are kept because they differ. The sixteen were chosen
//! from 500 by how much each saves on pages of eleven programs. An earlier word is looked for twice, by its low half and by all but
//! its low 16 bits: an integer beside a pointer is found by the one, a pointer into the same 64 KiB by the other.
//!
//! ```text
//! 8 bytes   bit g: the tags of words 8g to 8g + 7 are those of the 8 words before them
//! 4 bytes   for each other g: its tags, the first word's lowest
//! 1 byte    for each tag with a distance: words back, less one
//! 0-8       for each word: the bytes that are kept
//! ```
//!
//! Everything is done in passes over all words, and only two of them go word by word: looking up where a hash was last seen, and in
//! the decoder putting words together, since each may be made of the one before.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::ops::Range;

use crate::memory::{Zero, zeroed};
use crate::{PAGE_SIZE, Page};

const WORDS: usize = PAGE_SIZE / 8;
/// Words that a pass takes at once, and how many such blocks there are.
const BLOCK: usize = 64;
const BLOCKS: usize = WORDS / BLOCK;
/// Blocks that tell what a page is made of.
const QUARTER: usize = BLOCKS / 4;
/// Words in a group of tags, and how many groups there are.
const GROUP: usize = 8;
const GROUPS: usize = WORDS / GROUP;
/// Bytes of a group's tags, and of the bits that say which groups are repeated.
const GROUP_BYTES: usize = GROUP / 2;
const SAME_BYTES: usize = GROUPS / 8;
/// More of the first quarter's words kept whole: the page is not made of words.
const RAW_QUARTER: usize = 40;
/// More of all words kept whole: perhaps it is not.
const RAW_PAGE: usize = 160;
/// Zeros that stand before the first word, so that a pass can look back.
const BEFORE: usize = 8;
/// Entries of each table of hashes, and what a key is multiplied with.
const SLOTS: usize = 1024;
const HASH: u32 = 0x9E37_79B1;
/// Bytes that may be written beyond the end of what counts.
const SPARE: usize = 64;

/// What a word is told by.
#[derive(Clone, Copy, PartialEq)]
enum Like {
    Zero,
    Last,
    LastButOne,
    /// So far back as its byte says.
    Earlier,
}

/// A tag: what the word is like, and its bytes that are kept, from the first to before the end, the lowest being 0.
type Tag = (Like, u8, u8);

const TAGS: [Tag; 16] = [
    (Like::Zero, 0, 0),
    (Like::Last, 0, 0),
    (Like::LastButOne, 0, 0),
    (Like::Earlier, 0, 0),
    (Like::Earlier, 0, 1),
    (Like::Earlier, 0, 2),
    (Like::Zero, 0, 2),
    (Like::Last, 0, 2),
    (Like::LastButOne, 0, 2),
    (Like::Earlier, 4, 6),
    (Like::Earlier, 4, 8),
    (Like::LastButOne, 4, 8),
    (Like::Zero, 0, 5),
    (Like::Last, 0, 6),
    (Like::LastButOne, 0, 7),
    (Like::Zero, 0, 8),
];
/// The tag of a word that is kept whole.
const RAW: u8 = 15;

/// One bit for each byte that a tag keeps.
const KEPT: [u8; 16] = {
    let mut kept = [0; 16];
    let mut tag = 0;
    while tag < 16 {
        let (_, first, end) = TAGS[tag];
        kept[tag] = ((1u16 << end) - (1u16 << first)) as u8;
        tag += 1;
    }
    kept
};
/// All bits for a tag with a distance.
const FAR: [u8; 16] = of_kind(Like::Earlier);
/// All bits for a tag that is told by no other word.
const NEW: [u8; 16] = of_kind(Like::Zero);
/// Words back, less one, where the tag alone says it. Where no word is told by, far: nobody has to wait for that one.
const BACK: [u8; 16] = {
    let mut back = [u8::MAX; 16];
    let mut tag = 0;
    while tag < 16 {
        match TAGS[tag].0 {
            Like::Last => back[tag] = 0,
            Like::LastButOne => back[tag] = 1,
            Like::Zero | Like::Earlier => {}
        }
        tag += 1;
    }
    back
};

/// For each way of being like a word and each set of bytes that differ (a bit each): the cheapest tag, in the low four bits, and
/// above them the bytes that it takes beside the tag.
static CHEAPEST: [[u8; 256]; 4] =
    [cheapest(Like::Zero), cheapest(Like::Last), cheapest(Like::LastButOne), cheapest(Like::Earlier)];

const fn of_kind(like: Like) -> [u8; 16] {
    let mut all = [0; 16];
    let mut tag = 0;
    while tag < 16 {
        if TAGS[tag].0 as u8 == like as u8 {
            all[tag] = u8::MAX;
        }
        tag += 1;
    }
    all
}

const fn cheapest(like: Like) -> [u8; 256] {
    let mut table = [8 << 4 | RAW; 256];
    let mut differing = 0;
    while differing < 256 {
        let mut tag = 0;
        while tag < 16 {
            if TAGS[tag].0 as u8 == like as u8 && differing as u8 & !KEPT[tag] == 0 {
                let bytes = KEPT[tag].count_ones() as u8 + FAR[tag] / u8::MAX;
                let choice = bytes << 4 | tag as u8;
                if choice < table[differing] {
                    table[differing] = choice;
                }
            }
            tag += 1;
        }
        differing += 1;
    }
    table
}

/// What a page comes to.
#[derive(Clone, Copy, Default)]
pub(super) struct Found {
    /// Groups of tags that are not as the one before.
    groups: usize,
    distances: usize,
    /// Bytes that are kept.
    literals: usize,
    /// Words that are kept whole.
    raw: usize,
}

impl Found {
    /// The bytes that [`Memory::write`] will take.
    pub(super) fn len(&self) -> usize {
        SAME_BYTES + GROUP_BYTES * self.groups + self.distances + self.literals
    }

    /// Whether the other mode may be better: many words are like no other, or nearly all are an earlier one, as where
    /// something repeats that is no number of words long.
    pub(super) fn is_doubtful(&self) -> bool {
        self.raw > RAW_PAGE || self.distances > 2 * self.literals
    }
}

/// What is known of a page, and the working memory.
pub(super) struct Memory {
    simd: Simd,
    work: Box<[Work; 1]>,
    parts: Box<[Parts; 1]>,
}

/// Which of the twins does the passes.
#[derive(Clone, Copy)]
enum Simd {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Whether there is more than the portable twin.
pub(super) fn is_fast() -> bool {
    !matches!(Simd::best(), Simd::Portable)
}

impl Simd {
    fn best() -> Simd {
        #[cfg(target_arch = "x86_64")]
        if avx512::is_there() {
            return Simd::Avx512;
        }
        Simd::Portable
    }
}

#[derive(Clone, Copy)]
struct Work {
    /// The page, after BEFORE zeros.
    words: [u64; BEFORE + WORDS],
    /// Bytes of each word, a bit each, that differ from zero, the last word, the last but one, and the two earlier ones found.
    differing: [[u8; WORDS]; 5],
    /// The entry of each word in the two tables.
    slots: [[u16; 2]; WORDS],
    /// Which word was last in each (modulo 256); then how far back it is, less one.
    earlier: [[u8; 2]; WORDS],
    seen: [[u8; SLOTS]; 2],
    tags: [u8; WORDS / 2],
    groups: [[u8; GROUP_BYTES]; GROUPS],
    same: u64,
    distances: [u8; WORDS + SPARE],
    /// The bytes that are kept.
    literals: [u8; PAGE_SIZE + SPARE],
    found: Found,
}

impl Zero for Work {
    const ZERO: Work = Work {
        words: [0; BEFORE + WORDS],
        differing: [[0; WORDS]; 5],
        slots: [[0; 2]; WORDS],
        earlier: [[0; 2]; WORDS],
        seen: [[0; SLOTS]; 2],
        tags: [0; WORDS / 2],
        groups: [[0; GROUP_BYTES]; GROUPS],
        same: 0,
        distances: [0; WORDS + SPARE],
        literals: [0; PAGE_SIZE + SPARE],
        found: Found { groups: 0, distances: 0, literals: 0, raw: 0 },
    };
}

impl Memory {
    /// `None` where there is no memory.
    pub(super) fn new(simd: bool) -> Option<Memory> {
        let simd = if simd { Simd::best() } else { Simd::Portable };
        Some(Memory { simd, work: zeroed()?, parts: zeroed()? })
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.work) + size_of_val(&*self.parts)
    }

    /// Finds what each word is told by. `None` where the first quarter shows that the page is not made of words.
    pub(super) fn look(&mut self, page: &Page) -> Option<Found> {
        let [work] = &mut *self.work;
        work.seen.as_flattened_mut().fill(0);
        work.found = Found::default();
        work.choose(self.simd, page, 0..QUARTER);
        if work.found.raw > RAW_QUARTER { None } else { Some(self.look_on(page)) }
    }

    /// What the page would come to if all of it were as the first quarter, where [`Memory::look`] stopped after that.
    pub(super) fn expected(&self) -> usize {
        let [work] = &*self.work;
        let groups = QUARTER * BLOCK / GROUP;
        Found { groups, ..work.found }.len() * (BLOCKS / QUARTER)
    }

    /// The rest of what [`Memory::look`] does, where that stopped after the first quarter.
    pub(super) fn look_on(&mut self, page: &Page) -> Found {
        let [work] = &mut *self.work;
        work.choose(self.simd, page, QUARTER..BLOCKS);
        work.group();
        work.found
    }

    /// Writes what was found. Returns the length, or `None` where `out` is too small.
    pub(super) fn write(&self, out: &mut [u8]) -> Option<usize> {
        let [work] = &*self.work;
        let out = out.get_mut(..work.found.len())?;
        let (same, rest) = out.split_first_chunk_mut::<SAME_BYTES>()?;
        *same = work.same.to_le_bytes();
        let (groups, rest) = rest.split_at_mut(GROUP_BYTES * work.found.groups);
        groups.copy_from_slice(work.groups[..work.found.groups].as_flattened());
        let (distances, literals) = rest.split_at_mut(work.found.distances);
        distances.copy_from_slice(&work.distances[..work.found.distances]);
        literals.copy_from_slice(&work.literals[..work.found.literals]);
        Some(out.len())
    }

    /// Fills `page` from exactly `data`; `None` where that is no page.
    pub(super) fn decompress(&mut self, data: &[u8], page: &mut Page) -> Option<()> {
        let [parts] = &mut *self.parts;
        parts.find(self.simd, data)?;
        parts.put_together(page)
    }
}

impl Work {
    /// Chooses the tags of some blocks; those before them are done.
    fn choose(&mut self, simd: Simd, page: &Page, blocks: Range<usize>) {
        let (from, end) = (blocks.start * BLOCK, blocks.end * BLOCK);
        for (word, bytes) in
            self.words[BEFORE + from..BEFORE + end].iter_mut().zip(&page.as_chunks().0[from..end])
        {
            *word = u64::from_le_bytes(*bytes);
        }
        match simd {
            Simd::Portable => portable::compare_near(self, blocks.clone()),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd::best` saw that the processor has all that it is compiled for.
            Simd::Avx512 => unsafe { avx512::compare_near(self, blocks.clone()) },
        }
        self.look_up(blocks.clone());
        match simd {
            Simd::Portable => portable::compare_earlier(self, blocks.clone()),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { avx512::compare_earlier(self, blocks.clone()) },
        }
        if blocks.start == 0 {
            // There is no word before the first, and only one before the second.
            for like in &mut self.differing[1..] {
                like[0] = u8::MAX;
            }
            self.differing[2][1] = u8::MAX;
        }
        match simd {
            Simd::Portable => portable::keep(self, blocks),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { avx512::keep(self, blocks) },
        }
    }

    /// Where each hash was last. An entry that nobody made says word 0, and does no harm: the words are compared.
    fn look_up(&mut self, blocks: Range<usize>) {
        let [first, second] = &mut self.seen;
        for at in blocks.start * BLOCK..blocks.end * BLOCK {
            #[expect(clippy::cast_possible_truncation, reason = "modulo 256 is what is kept")]
            let now = at as u8;
            let [one, other] = self.slots[at].map(|slot| usize::from(slot) % SLOTS);
            self.earlier[at] =
                [std::mem::replace(&mut first[one], now), std::mem::replace(&mut second[other], now)];
        }
    }

    /// Leaves out the groups that are as the one before.
    fn group(&mut self) {
        let (mut same, mut count, mut before) = (0, 0, 0);
        for (at, group) in self.tags.as_chunks::<GROUP_BYTES>().0.iter().enumerate() {
            self.groups[count] = *group;
            let now = u32::from_le_bytes(*group);
            count += usize::from(now != before);
            same |= u64::from(now == before) << at;
            before = now;
        }
        (self.same, self.found.groups) = (same, count);
    }
}

/// What the decoder knows of each word before it puts them together.
#[derive(Clone, Copy)]
struct Parts {
    /// Words back, less one.
    back: [u8; WORDS],
    /// The bits that are the other word's.
    others: [u64; WORDS],
    /// The bits that are its own.
    own: [u64; WORDS],
}

impl Zero for Parts {
    const ZERO: Parts = Parts { back: [0; WORDS], others: [0; WORDS], own: [0; WORDS] };
}

impl Parts {
    fn find(&mut self, simd: Simd, data: &[u8]) -> Option<()> {
        let (same, rest) = data.split_first_chunk::<SAME_BYTES>()?;
        let same = u64::from_le_bytes(*same);
        let (groups, rest) = rest.split_at_checked(GROUP_BYTES * same.count_zeros() as usize)?;
        let mut groups = groups.as_chunks::<GROUP_BYTES>().0.iter();
        let mut tags = [0; WORDS / 2];
        let mut group = [0; GROUP_BYTES];
        for (at, tags) in tags.as_chunks_mut::<GROUP_BYTES>().0.iter_mut().enumerate() {
            if same >> at & 1 == 0 {
                group = *groups.next()?;
            }
            *tags = group;
        }
        match simd {
            Simd::Portable => portable::take_apart(&tags, rest, self),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd::best` saw that the processor has all that it is compiled for.
            Simd::Avx512 => unsafe { avx512::take_apart(&tags, rest, self) },
        }
    }

    fn put_together(&self, page: &mut Page) -> Option<()> {
        let words: &mut [[u8; 8]; WORDS] = page.as_chunks_mut().0.try_into().ok()?;
        for at in 0..WORDS {
            // Where no word is told by, this is any word, of which nothing is taken.
            let like = u64::from_le_bytes(words[at.wrapping_sub(1 + usize::from(self.back[at])) % WORDS]);
            words[at] = (like & self.others[at] | self.own[at]).to_le_bytes();
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_kept() {
        for (like, table) in
            [Like::Zero, Like::Last, Like::LastButOne, Like::Earlier].into_iter().zip(&CHEAPEST)
        {
            for (differing, choice) in (0..=u8::MAX).zip(table) {
                let tag = usize::from(choice & 15);
                assert_eq!(differing & !KEPT[tag], 0);
                assert!(TAGS[tag].0 == like || tag == usize::from(RAW));
            }
        }
    }
}
