//! The mode for pages that are not made of words, as text and packed records: 512 words too, but each told by eight bytes that may
//! begin anywhere before the group of eight words it is in.
//!
//! A repetition of some length is so as many words in a row with the same distance, which is said once, and words at either
//! end of which only some bytes are taken over. Against one record for each repetition, as others have it, this takes no branch that
//! could be foretold wrongly, and nothing waits for the end of the repetition before (docs/weft.md has the figures).
//!
//! Where the first and where the last four bytes of a word were before is looked up in a table of positions; looking up and
//! noting down is all that is done one after another, and takes half of the time. Of 64 positions the last seven are left out: their
//! words end in the next group.
//!
//! ```text
//! tags      as in the other mode
//! 1 byte    for each tag with a distance: its low eight bits
//! 4 bits    for each of them: the others
//! 0-8       for each word: the bytes that are kept
//! ```

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::Simd;
use super::tags::{GROUP, Groups, SPARE, Tag, WORDS, cheapest, kept, of_kind, tags_of};
use crate::memory::{Zero, zeroed};
use crate::{PAGE_SIZE, Page};

/// What a word is told by: none, bytes as far before it as were taken last, or bytes as far before it as its number says.
const ZERO: u8 = 0;
const SAME: u8 = 1;
const NEW: u8 = 2;

/// Chosen one after another, each time the one that saves most on pages of CPython, SQLite and text.
const TAGS: [Tag; 16] = [
    (ZERO, 0, 0),
    (SAME, 0, 0),
    (NEW, 0, 0),
    (NEW, 0, 4),
    (NEW, 4, 8),
    (NEW, 0, 2),
    (NEW, 5, 8),
    (NEW, 0, 3),
    (NEW, 2, 4),
    (NEW, 7, 8),
    (SAME, 5, 8),
    (SAME, 0, 2),
    (SAME, 2, 8),
    (SAME, 7, 8),
    (ZERO, 0, 1),
    (ZERO, 0, 8),
];

/// One bit for each byte that a tag keeps.
const KEPT: [u8; 16] = kept(&TAGS);
/// All bits for a tag with a distance.
const FAR: [u8; 16] = of_kind(&TAGS, NEW);
/// All bits for a tag that is told by no other bytes.
const ALONE: [u8; 16] = of_kind(&TAGS, ZERO);
/// For each way of being like other bytes: what [`cheapest`] has.
static CHEAPEST: [[u8; 256]; 3] =
    [cheapest(&TAGS, ZERO, 0), cheapest(&TAGS, SAME, 0), cheapest(&TAGS, NEW, 3)];

/// Entries of the table of positions, and what the halves of four bytes are multiplied with.
const SLOTS: usize = 4096;
const FACTORS: [u16; 2] = [0x9E37, 0x79B1];

/// The last position in a group of which all eight bytes are in it.
const LAST: usize = 8 * (GROUP - 1);

/// What is known of a page, and the working memory.
pub(super) struct Memory {
    simd: Simd,
    work: Box<[Work; 1]>,
}

#[derive(Clone, Copy)]
struct Work {
    /// The entry of the four bytes at each even position, and at each odd one.
    slots: [[u16; PAGE_SIZE / 2]; 2],
    seen: [u16; SLOTS],
    /// Where the first four and the last four bytes of each word were before.
    likes: [[u16; 2]; WORDS],
    /// Bytes of each word, a bit each, that differ from zero, and from the three candidates: as far back as its first four bytes
    /// were found, as its last four were, and as the last four of the word before its group.
    differing: [[u8; WORDS]; 4],
    /// How far back the candidates are, and where that is.
    back: [[u16; WORDS]; 3],
    places: [[u16; WORDS]; 3],
    tags: [u8; WORDS / 2],
    groups: Groups,
    /// The low eight bits of distances, and the others.
    distances: [[u8; WORDS + SPARE]; 2],
    distance_count: usize,
    /// The bytes that are kept.
    literals: [u8; PAGE_SIZE + SPARE],
    literal_count: usize,
}

impl Zero for Work {
    const ZERO: Work = Work {
        slots: [[0; PAGE_SIZE / 2]; 2],
        seen: [0; SLOTS],
        likes: [[0; 2]; WORDS],
        differing: [[0; WORDS]; 4],
        back: [[0; WORDS]; 3],
        places: [[0; WORDS]; 3],
        tags: [0; WORDS / 2],
        groups: Groups::ZERO,
        distances: [[0; WORDS + SPARE]; 2],
        distance_count: 0,
        literals: [0; PAGE_SIZE + SPARE],
        literal_count: 0,
    };
}

impl Memory {
    /// `None` where there is no memory.
    pub(super) fn new(simd: Simd) -> Option<Memory> {
        Some(Memory { simd, work: zeroed()? })
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.work)
    }

    /// Finds what each word is told by. Returns the bytes that [`Memory::write`] will take.
    pub(super) fn look(&mut self, page: &Page) -> usize {
        let [work] = &mut *self.work;
        match self.simd {
            Simd::Portable => portable::hash(work, page),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Simd::best` saw that the processor has all that it is compiled for.
            Simd::Avx512 => unsafe { avx512::hash(work, page) },
        }
        work.look_up();
        match self.simd {
            Simd::Portable => portable::compare(work, page),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { avx512::compare(work, page) },
        }
        (work.distance_count, work.literal_count) = (0, 0);
        match self.simd {
            Simd::Portable => portable::keep(work, page),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { avx512::keep(work, page) },
        }
        work.groups.find(&work.tags);
        work.groups.len() + work.distance_count + work.distance_count.div_ceil(2) + work.literal_count
    }

    /// Writes what was found. Returns the length, or `None` where `out` is too small.
    pub(super) fn write(&self, out: &mut [u8]) -> Option<usize> {
        let [work] = &*self.work;
        let room = out.len();
        let rest = work.groups.write(out)?;
        let (low, rest) = rest.split_at_mut_checked(work.distance_count)?;
        let (high, rest) = rest.split_at_mut_checked(work.distance_count.div_ceil(2))?;
        let (literals, rest) = rest.split_at_mut_checked(work.literal_count)?;
        low.copy_from_slice(&work.distances[0][..work.distance_count]);
        for (to, [first, second]) in high.iter_mut().zip(work.distances[1].as_chunks().0) {
            *to = first | second << 4;
        }
        literals.copy_from_slice(&work.literals[..work.literal_count]);
        Some(room - rest.len())
    }
}

impl Work {
    /// Where the bytes were before. An entry that nobody made says 0, and does no harm: the bytes are compared.
    fn look_up(&mut self) {
        self.seen.fill(0);
        let [even, odd] = self.slots.each_ref().map(|slots| slots.as_chunks::<{ 4 * GROUP }>().0);
        let groups = even.iter().zip(odd).zip(self.likes.as_chunks_mut::<GROUP>().0);
        let mut begin = 0;
        for ((even, odd), likes) in groups {
            for (likes, slots) in likes.iter_mut().zip(even.as_chunks::<4>().0) {
                *likes = [slots[0], slots[2]].map(|slot| self.seen[usize::from(slot) % SLOTS]);
            }
            let mut note = |slot: u16, at: u16| self.seen[usize::from(slot) % SLOTS] = at;
            // In fours: a count that is foretold, where one of 28 is not.
            let pairs = even.as_chunks::<4>().0.iter().zip(odd.as_chunks::<4>().0);
            for ((even, odd), at) in pairs.take(LAST / 8).zip((begin..).step_by(8)) {
                for ((&even, &odd), at) in even.iter().zip(odd).zip((at..).step_by(2)) {
                    note(even, at);
                    note(odd, at + 1);
                }
            }
            note(even[LAST / 2], begin + LAST as u16);
            begin += 8 * GROUP as u16;
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
