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
//! Everything is done in passes over all words, and only one of them goes word by word: looking up where a hash was last seen.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::ops::Range;

use super::Simd;
use super::tags::{BLOCK, GROUP, Groups, RAW, SPARE, Tag, WORDS, cheapest, kept, of_kind, tags_of};
use crate::memory::{Zero, zeroed};
use crate::{PAGE_SIZE, Page};

const BLOCKS: usize = WORDS / BLOCK;
/// Blocks that tell what a page is made of.
const QUARTER: usize = BLOCKS / 4;
/// More of the first block's words kept whole, or of the first quarter's: the page is not made of words.
const RAW_BLOCK: usize = 48;
const RAW_QUARTER: usize = 40;
/// More of all words kept whole: perhaps it is not.
const RAW_PAGE: usize = 160;
/// Entries of each table of hashes, and what a key is multiplied with.
const SLOTS: usize = 1024;
const HASH: u32 = 0x9E37_79B1;

/// What a word is told by: none, the last, the last but one, or one so far back as its byte says.
const ZERO: u8 = 0;
const LAST: u8 = 1;
const LAST_BUT_ONE: u8 = 2;
const EARLIER: u8 = 3;

const TAGS: [Tag; 16] = [
    (ZERO, 0, 0),
    (LAST, 0, 0),
    (LAST_BUT_ONE, 0, 0),
    (EARLIER, 0, 0),
    (EARLIER, 0, 1),
    (EARLIER, 0, 2),
    (ZERO, 0, 2),
    (LAST, 0, 2),
    (LAST_BUT_ONE, 0, 2),
    (EARLIER, 4, 6),
    (EARLIER, 4, 8),
    (LAST_BUT_ONE, 4, 8),
    (ZERO, 0, 5),
    (LAST, 0, 6),
    (LAST_BUT_ONE, 0, 7),
    (ZERO, 0, 8),
];
/// One bit for each byte that a tag keeps.
const KEPT: [u8; 16] = kept(&TAGS);
/// All bits for a tag with a distance.
const FAR: [u8; 16] = of_kind(&TAGS, EARLIER);
/// All bits for a tag that is told by no other word.
const NEW: [u8; 16] = of_kind(&TAGS, ZERO);
/// Words back, less one, where the tag alone says it.
const BACK: [u8; 16] = {
    let mut back = [0; 16];
    let mut tag = 0;
    while tag < 16 {
        match TAGS[tag].0 {
            LAST => back[tag] = 0,
            LAST_BUT_ONE => back[tag] = 1,
            _ => {}
        }
        tag += 1;
    }
    back
};

/// For each way of being like a word: what [`cheapest`] has.
static CHEAPEST: [[u8; 256]; 4] = [
    cheapest(&TAGS, ZERO, 0),
    cheapest(&TAGS, LAST, 0),
    cheapest(&TAGS, LAST_BUT_ONE, 0),
    cheapest(&TAGS, EARLIER, 2),
];

/// What a page comes to.
#[derive(Clone, Copy, Default)]
pub(super) struct Found {
    /// Bytes of the tags.
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
        self.groups + self.distances + self.literals
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
    /// Blocks that have been looked at.
    done: usize,
}

#[derive(Clone, Copy)]
struct Work {
    /// Bytes of each word, a bit each, that differ from zero, the last word, the last but one, and the two earlier ones found.
    differing: [[u8; WORDS]; 5],
    /// The entry of each word in the two tables.
    slots: [[u16; 2]; WORDS],
    /// Which word was last in each (modulo 256); then how far back it is, less one.
    earlier: [[u8; 2]; WORDS],
    /// Their numbers.
    likes: [[u16; WORDS]; 2],
    seen: [[u8; SLOTS]; 2],
    tags: [u8; WORDS / 2],
    groups: Groups,
    distances: [u8; WORDS + SPARE],
    /// The bytes that are kept.
    literals: [u8; PAGE_SIZE + SPARE],
    found: Found,
}

impl Zero for Work {
    const ZERO: Work = Work {
        differing: [[0; WORDS]; 5],
        slots: [[0; 2]; WORDS],
        earlier: [[0; 2]; WORDS],
        likes: [[0; WORDS]; 2],
        seen: [[0; SLOTS]; 2],
        tags: [0; WORDS / 2],
        groups: Groups::ZERO,
        distances: [0; WORDS + SPARE],
        literals: [0; PAGE_SIZE + SPARE],
        found: Found { groups: 0, distances: 0, literals: 0, raw: 0 },
    };
}

impl Memory {
    /// `None` where there is no memory.
    pub(super) fn new(simd: Simd) -> Option<Memory> {
        Some(Memory { simd, work: zeroed()?, done: BLOCKS })
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.work)
    }

    /// Finds what each word is told by. `None` where the first block, or the first quarter, shows that
    /// the page is not made of words.
    pub(super) fn look(&mut self, page: &Page) -> Option<Found> {
        let [work] = &mut *self.work;
        work.seen.as_flattened_mut().fill(0);
        work.found = Found::default();
        for (blocks, most) in [(0..1, RAW_BLOCK), (1..QUARTER, RAW_QUARTER)] {
            self.done = blocks.end;
            work.choose(self.simd, page, blocks);
            if work.found.raw > most {
                return None;
            }
        }
        Some(self.look_on(page))
    }

    /// What the page would come to if all of it were as what [`Memory::look`] stopped after.
    pub(super) fn expected(&self) -> usize {
        let [work] = &*self.work;
        let groups = self.done * BLOCK / 2;
        Found { groups, ..work.found }.len() * BLOCKS / self.done
    }

    /// The rest of what [`Memory::look`] does, where that stopped before.
    pub(super) fn look_on(&mut self, page: &Page) -> Found {
        let [work] = &mut *self.work;
        work.choose(self.simd, page, self.done..BLOCKS);
        self.done = BLOCKS;
        work.groups.find(&work.tags);
        work.found.groups = work.groups.len();
        work.found
    }

    /// Writes what was found. Returns the length, or `None` where `out` is too small.
    pub(super) fn write(&self, out: &mut [u8]) -> Option<usize> {
        let [work] = &*self.work;
        let len = work.found.len();
        let out = out.get_mut(..len)?;
        let rest = work.groups.write(out)?;
        let (distances, literals) = rest.split_at_mut(work.found.distances);
        distances.copy_from_slice(&work.distances[..work.found.distances]);
        literals.copy_from_slice(&work.literals[..work.found.literals]);
        Some(len)
    }
}

impl Work {
    /// Chooses the tags of some blocks; those before them are done.
    fn choose(&mut self, simd: Simd, page: &Page, blocks: Range<usize>) {
        match simd {
            Simd::Portable => portable::compare_near(self, page, blocks.clone()),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd::best` saw that the processor has all that it is compiled for.
            Simd::Avx512 => unsafe { avx512::compare_near(self, page, blocks.clone()) },
        }
        self.look_up(blocks.clone());
        match simd {
            Simd::Portable => portable::compare_earlier(self, page, blocks.clone()),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { avx512::compare_earlier(self, page, blocks.clone()) },
        }
        if blocks.start == 0 {
            // There is no word before the first, and only one before the second.
            for like in &mut self.differing[1..] {
                like[0] = u8::MAX;
            }
            self.differing[2][1] = u8::MAX;
        }
        match simd {
            Simd::Portable => portable::keep(self, page, blocks),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { avx512::keep(self, page, blocks) },
        }
    }

    /// Where each hash was last. An entry that nobody made says word 0, and does no harm: the words are compared.
    fn look_up(&mut self, blocks: Range<usize>) {
        let [first, second] = &mut self.seen;
        let words = blocks.start * BLOCK..blocks.end * BLOCK;
        let slots = self.slots[words.clone()].as_chunks::<GROUP>().0;
        let earlier = self.earlier[words.clone()].as_chunks_mut::<GROUP>().0;
        #[expect(clippy::cast_possible_truncation, reason = "modulo 256 is what is kept")]
        let mut now = words.start as u8;
        for (slots, earlier) in slots.iter().zip(earlier) {
            for (slots, earlier) in slots.iter().zip(earlier) {
                let [one, other] = slots.map(|slot| usize::from(slot) % SLOTS);
                let were = [first[one], second[other]];
                (first[one], second[other]) = (now, now);
                *earlier = were;
                now = now.wrapping_add(1);
            }
        }
    }
}

/// Fills `page` from exactly `data`; `None` where that is no page.
pub(super) fn decompress(simd: Simd, data: &[u8], page: &mut Page) -> Option<()> {
    match simd {
        Simd::Portable => {
            let (tags, rest) = tags_of(data)?;
            portable::decompress(&tags, rest, page)
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Simd::best` saw that the processor has all that it is compiled for.
        Simd::Avx512 => unsafe {
            let (tags, rest) = crate::weft::avx512::tags_of(data)?;
            avx512::decompress(&tags, rest, page)
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_kept() {
        for (like, table) in (ZERO..).zip(&CHEAPEST) {
            for (differing, choice) in (0..=u8::MAX).zip(table) {
                let tag = usize::from(choice & 15);
                assert_eq!(differing & !KEPT[tag], 0);
                assert!(TAGS[tag].0 == like || tag == usize::from(RAW));
            }
        }
    }
}
