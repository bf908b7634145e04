//! The mode for pages that are not made of words: repetitions from anywhere, of six bytes and more.
//!
//! What a repetition takes is three bytes, always: how many literals come before it (5 bits), its length (7) and how far back it
//! is (12). All of these stand before all literals, so that the decoder knows the next one before it has done with the last.
//! The search takes the first candidate that a hash of six bytes gives; six and not four, because repetitions of four or five bytes
//! save one or two bytes and cost as much time as any other (docs/weft.md has the figures).

use crate::memory::zeroed;
use crate::{PAGE_SIZE, Page};

/// 4 KiB of table; twice as much makes text 0.5 % smaller.
const HASH_BITS: u32 = 11;
/// Bytes that are hashed, and the shortest repetition.
const LEAST: u32 = 6;
/// A step grows by one for each 2^PATIENCE bytes without a repetition.
const PATIENCE: u32 = 5;
/// Bytes at the end where no repetition starts, so that WIDE literals can be read from wherever one does.
const TAIL: usize = WIDE;
/// Bytes copied at once: all literals of a record. Of a repetition, in halves, so that it may overlap itself.
const WIDE: usize = 32;
const HALF: usize = WIDE / 2;

/// Bytes of a record.
const RECORD: usize = 3;
/// Most literals and longest repetition of one record. Longer ones take several.
const MOST_LITERALS: usize = 31;
const LONGEST: usize = 127;
/// Records that a page can need at most: one for each LEAST bytes, one more for each MOST_LITERALS or LONGEST of them.
const MOST_RECORDS: usize = PAGE_SIZE / LEAST as usize + PAGE_SIZE / MOST_LITERALS + PAGE_SIZE / LONGEST + 1;
/// Bytes of the number of records.
const COUNT: usize = 2;

/// What is known of a page, and the working memory.
pub(super) struct Memory {
    /// Where in the page each hash was last. 0 is also what a cleared entry says, and does no harm: the bytes are compared.
    seen: Box<[u16; 1 << HASH_BITS]>,
    records: Box<[[u8; RECORD]; MOST_RECORDS]>,
    count: usize,
    /// Literals before the last record, and room for WIDE beyond them.
    literals: Box<[u8; PAGE_SIZE + WIDE]>,
    literal_count: usize,
    /// First byte of the page that no record makes.
    rest_from: usize,
}

impl Memory {
    /// `None` where there is no memory.
    pub(super) fn new() -> Option<Memory> {
        Some(Memory {
            seen: zeroed()?,
            records: zeroed()?,
            count: 0,
            literals: zeroed()?,
            literal_count: 0,
            rest_from: 0,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.seen) + size_of_val(&*self.records) + size_of_val(&*self.literals)
    }

    /// Finds the repetitions. Returns the bytes that [`Memory::write`] will take.
    pub(super) fn look(&mut self, page: &Page) -> usize {
        self.seen.fill(0);
        (self.count, self.literal_count, self.rest_from) = (0, 0, 0);
        let mut at = 1;
        while at < PAGE_SIZE - TAIL {
            let here = eight(page, at);
            #[expect(clippy::cast_possible_truncation, reason = "positions are below 4096")]
            let from = usize::from(std::mem::replace(&mut self.seen[hash(here)], at as u16));
            let differing = eight(page, from) ^ here;
            if differing << (u64::BITS - 8 * LEAST) != 0 {
                at += 1 + ((at - self.rest_from) >> PATIENCE);
                continue;
            }
            let end = at + alike(page, from, at, differing);
            self.record(page, at, end, at - from);
            at = end;
        }
        COUNT + RECORD * self.count + self.literal_count + PAGE_SIZE - self.rest_from
    }

    /// Notes that the bytes from `begin` to before `end` are those `distance` before them.
    #[inline(always)]
    fn record(&mut self, page: &Page, begin: usize, end: usize, distance: usize) {
        let from = self.rest_from;
        let (mut literals, mut len) = (begin - from, end - begin);
        let mut done = 0;
        loop {
            let (source, target) = (from + done, self.literal_count + done);
            self.literals[target..target + WIDE].copy_from_slice(&page[source..source + WIDE]);
            done += WIDE;
            if done >= literals {
                break;
            }
        }
        self.literal_count += literals;
        self.rest_from = end;
        while literals > MOST_LITERALS {
            self.put(MOST_LITERALS, 0, 0);
            literals -= MOST_LITERALS;
        }
        while len > LONGEST {
            self.put(literals, LONGEST, distance);
            (literals, len) = (0, len - LONGEST);
        }
        self.put(literals, len, distance);
    }

    #[inline(always)]
    fn put(&mut self, literals: usize, len: usize, distance: usize) {
        let record = literals | len << 5 | distance << 12;
        let [low, middle, high, ..] = record.to_le_bytes();
        self.records[self.count] = [low, middle, high];
        self.count += 1;
    }

    /// Writes what was found in `page`. Returns the length, or `None` where `out` is too small.
    pub(super) fn write(&self, page: &Page, out: &mut [u8]) -> Option<usize> {
        let (count, rest) = out.split_first_chunk_mut::<COUNT>()?;
        let (records, rest) = rest.split_at_mut_checked(RECORD * self.count)?;
        let (literals, rest) = rest.split_at_mut_checked(self.literal_count)?;
        let last = &page[self.rest_from..];
        rest.get_mut(..last.len())?.copy_from_slice(last);
        literals.copy_from_slice(&self.literals[..self.literal_count]);
        records.copy_from_slice(self.records[..self.count].as_flattened());
        #[expect(clippy::cast_possible_truncation, reason = "MOST_RECORDS is below 65536")]
        let number = self.count as u16;
        *count = number.to_le_bytes();
        Some(COUNT + records.len() + literals.len() + last.len())
    }
}

#[inline(always)]
fn hash(word: u64) -> usize {
    ((word << (u64::BITS - 8 * LEAST)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - HASH_BITS))
        as usize
}

/// The eight bytes at `at`; 0 past the end of the page.
#[inline(always)]
fn eight(page: &Page, at: usize) -> u64 {
    page.get(at..at + 8).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// How many bytes from `from` and from `at` on are alike, where `differing` is what differs in the first eight.
#[inline(always)]
fn alike(page: &Page, from: usize, at: usize, mut differing: u64) -> usize {
    let mut len = 0;
    while differing == 0 {
        len += 8;
        if at + len + 8 > PAGE_SIZE {
            let (earlier, later) = (page[from + len..].iter(), page[at + len..].iter());
            return len + later.zip(earlier).take_while(|(one, other)| one == other).count();
        }
        differing = eight(page, from + len) ^ eight(page, at + len);
    }
    len + (differing.trailing_zeros() / 8) as usize
}

/// Fills `page` from exactly `data`; `None` where that is no page.
pub(super) fn decompress(data: &[u8], page: &mut Page) -> Option<()> {
    let (count, rest) = data.split_first_chunk::<COUNT>()?;
    let (records, mut literals) = rest.split_at_checked(RECORD * usize::from(u16::from_le_bytes(*count)))?;
    let mut at = 0;
    for &[low, middle, high] in records.as_chunks::<RECORD>().0 {
        let record = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
        let (count, len, distance) = (record & 31, record >> 5 & 127, record >> 12);
        let begin = at + count;
        let (from, end) = (begin.checked_sub(distance)?, begin + len);
        if distance == 0 && len > 0 {
            return None;
        }
        // Away from both ends there is room to copy more than what counts, which what follows writes over: few records then take a
        // branch of their own.
        if end <= PAGE_SIZE - WIDE
            && let Some(some) = literals.first_chunk::<WIDE>()
        {
            page[at..at + WIDE].copy_from_slice(some);
            match distance {
                HALF.. => {
                    copy::<HALF>(page, from, begin);
                    copy::<HALF>(page, from + HALF, begin + HALF);
                    for done in (WIDE..len).step_by(HALF) {
                        copy::<HALF>(page, from + done, begin + done);
                    }
                }
                8.. => (0..len).step_by(8).for_each(|done| copy::<8>(page, from + done, begin + done)),
                1.. => {
                    let (pattern, step) = repeated(&page[from..], distance);
                    for done in (0..len).step_by(step) {
                        page[begin + done..begin + done + 8].copy_from_slice(&pattern.to_le_bytes());
                    }
                }
                0 => {}
            }
        } else {
            page.get_mut(at..begin)?.copy_from_slice(literals.get(..count)?);
            page.get(begin..end)?;
            for (from, to) in (from..).zip(begin..end) {
                page[to] = page[from];
            }
        }
        literals = &literals[count..];
        at = end;
    }
    let rest = page.get_mut(at..).filter(|rest| rest.len() == literals.len())?;
    rest.copy_from_slice(literals);
    Some(())
}

/// Copies N bytes that are at least N before where they go.
#[inline(always)]
fn copy<const N: usize>(page: &mut Page, from: usize, to: usize) {
    page.copy_within(from..from + N, to);
}

/// Eight bytes that repeat the first `distance` of `bytes`, and after how many of them they begin anew.
#[inline(always)]
fn repeated(bytes: &[u8], distance: usize) -> (u64, usize) {
    const TIMES: [u64; 8] = [
        0,
        0x0101_0101_0101_0101,
        0x0001_0001_0001_0001,
        1 | 1 << 24 | 1 << 48,
        1 | 1 << 32,
        1 | 1 << 40,
        1 | 1 << 48,
        1 | 1 << 56,
    ];
    const STEP: [usize; 8] = [8, 8, 8, 6, 8, 5, 6, 7];
    let bits = 64 - 8 * distance;
    let eight = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    ((eight << bits >> bits).wrapping_mul(TIMES[distance % 8]), STEP[distance % 8])
}
