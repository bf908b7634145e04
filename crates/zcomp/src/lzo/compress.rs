//! The compressor: one candidate a position, found by a hash of four bytes.
//!
//! It trades ratio for speed the way LZO1X-1 does: the first match found is taken, and the longer nothing matched, the longer
//! the steps. It never writes instructions for copies from 16 KiB back, since a page has no distance above 4095, nor the
//! copies of 2 and 3 bytes, which a hash of four does not find.
//!
//! What it is fast by is few branches that cannot be foretold. The hash table is cleared for every page: entries that
//! carry the number of their page save the 0.1 us and cost 0.7 us in the search (docs/compressors.md).

use super::{END, NEAR, VERSION_1, ZEROS};
use crate::memory::zeroed;
use crate::{PAGE_SIZE, Page};

/// 8 KiB of table; twice as much makes the result 0.2 % smaller.
const HASH_BITS: u32 = 12;
/// A step grows by one for each 2^PATIENCE bytes without a match.
const PATIENCE: u32 = 5;
/// Bytes at the end where no copy starts: so eight bytes can be read from any place where one does, and WIDE literals before.
const TAIL: usize = 20;
/// Literals copied at once.
const WIDE: usize = 16;
/// A run of zeros this long gets its own instruction of four bytes. Shorter ones are mostly a copy of an earlier run, in two.
const WORTHWHILE_ZEROS: usize = 16;
/// More than any page comes to: at worst 23 bytes become 24 (19 literals with two bytes before them, and a copy of four bytes
/// in three), then version, end, and what is written beyond the end of a short piece.
const ROOM: usize = PAGE_SIZE + PAGE_SIZE / 22 + 64;

/// The working memory.
pub(super) struct Memory {
    /// Where in the page each hash was last. 0 is also what a cleared entry says, and does no harm: the words are compared.
    seen: Box<[u16; 1 << HASH_BITS]>,
    /// The stream is made here, where there is room for pieces of fixed size, and copied out when it is known to fit.
    room: Box<[u8; ROOM]>,
}

impl Memory {
    /// `None` where there is no memory.
    pub(super) fn new() -> Option<Memory> {
        Some(Memory { seen: zeroed()?, room: zeroed()? })
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.seen) + size_of_val(&*self.room)
    }
}

/// Compresses `page` into `out`; the length, or `None` if it does not fit.
pub(super) fn compress<const RLE: bool>(page: &Page, out: &mut [u8], memory: &mut Memory) -> Option<usize> {
    let seen = &mut memory.seen;
    seen.fill(0);
    let mut writer = Writer { page, room: &mut memory.room, len: 0, literals_from: 0, state_at: None };
    if RLE {
        writer.put(&VERSION_1);
    }
    // The first instruction cannot be a copy, so one byte at least is a literal.
    let mut at = 1;
    while at < PAGE_SIZE - TAIL {
        let here = eight(page, at);
        if RLE && here == 0 {
            let zeros = zeros_from(page, at);
            if zeros >= WORTHWHILE_ZEROS {
                writer.literals_until(at);
                writer.zeros(zeros);
                at += zeros;
                continue;
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "the low four of the eight bytes")]
        let word = here as u32;
        let hash = word.wrapping_mul(0x9E37_79B1) >> (u32::BITS - HASH_BITS);
        #[expect(clippy::cast_possible_truncation, reason = "positions are below 4096")]
        let from = usize::from(std::mem::replace(&mut seen[hash as usize], at as u16));
        if four(page, from) != word {
            at += 1 + ((at - writer.literals_from) >> PATIENCE);
            continue;
        }
        let len = alike(page, from, at, here);
        writer.literals_until(at);
        writer.copy(at - from, len);
        at += len;
    }
    writer.last_literals();
    writer.put(&END);
    let made = writer.room.get(..writer.len)?;
    out.get_mut(..made.len())?.copy_from_slice(made);
    Some(made.len())
}

/// The four bytes at `at`; 0 past the end of the page.
#[inline(always)]
fn four(page: &Page, at: usize) -> u32 {
    page.get(at..at + 4).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The eight bytes at `at`; 0 past the end of the page.
#[inline(always)]
fn eight(page: &Page, at: usize) -> u64 {
    page.get(at..at + 8).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// How many bytes from `from` and from `at` on are alike, where `here` is `eight(page, at)` and the first four are.
#[inline(always)]
fn alike(page: &Page, from: usize, at: usize, here: u64) -> usize {
    let mut differing = eight(page, from) ^ here;
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

/// How many zeros there are from `at` on, as far as one instruction reaches.
fn zeros_from(page: &Page, at: usize) -> usize {
    let run = &page[at..PAGE_SIZE.min(at + ZEROS.end())];
    let (words, _) = run.as_chunks::<8>();
    let len = 8 * words.iter().take_while(|word| **word == [0; 8]).count();
    len + run[len..].iter().take_while(|byte| **byte == 0).count()
}

/// The stream as far as it is written.
struct Writer<'a> {
    page: &'a Page,
    room: &'a mut [u8; ROOM],
    len: usize,
    /// First byte of the page that no instruction makes yet.
    literals_from: usize,
    /// Where the S bits of the last instruction are; `None` before the first.
    state_at: Option<usize>,
}

impl Writer<'_> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.put_some(bytes, N);
    }

    /// Writes all of `bytes`, of which `count` count.
    #[inline(always)]
    fn put_some<const N: usize>(&mut self, bytes: &[u8; N], count: usize) {
        self.room[self.len..self.len + N].copy_from_slice(bytes);
        self.len += count;
    }

    /// An instruction whose low `bits` bits hold `value`, or 0 and what follows it where they are too few.
    #[inline(always)]
    fn put_length(&mut self, instruction: u8, bits: u32, value: usize) {
        let most = (1 << bits) - 1;
        if value <= most {
            self.put(&[instruction | low(value)]);
        } else {
            self.put(&[instruction]);
            let mut rest = value - most;
            while rest > 255 {
                self.put(&[0]);
                rest -= 255;
            }
            self.put(&[low(rest)]);
        }
    }

    /// The instruction for so many literals: at least one if it is the first of all.
    #[inline(always)]
    fn announce(&mut self, count: usize) {
        match self.state_at {
            Some(at) if count <= 3 => self.room[at] |= low(count),
            None if count <= 238 => self.put(&[17 + low(count)]),
            _ => self.put_length(0, 4, count - 3),
        }
    }

    /// The bytes from `literals_from` to before `end`, as they are; `end` is before the tail.
    #[inline(always)]
    fn literals_until(&mut self, end: usize) {
        let from = self.literals_from;
        let count = end - from;
        self.announce(count);
        let mut done = 0;
        loop {
            let (source, target) = (from + done, self.len + done);
            self.room[target..target + WIDE].copy_from_slice(&self.page[source..source + WIDE]);
            done += WIDE;
            if done >= count {
                break;
            }
        }
        self.len += count;
        self.literals_from = end;
    }

    /// The bytes from `literals_from` on.
    fn last_literals(&mut self) {
        let last = &self.page[self.literals_from..];
        self.announce(last.len());
        self.room[self.len..self.len + last.len()].copy_from_slice(last);
        self.len += last.len();
    }

    /// `len` bytes from `distance` back.
    #[inline(always)]
    fn copy(&mut self, distance: usize, len: usize) {
        self.literals_from += len;
        let distance = distance - 1;
        if len <= 33 {
            // Both are made and one is chosen without a branch.
            let near = (distance < NEAR.0) & (len <= NEAR.1);
            let short = (len - 1) << 5 | (distance & 7) << 2 | (distance >> 3) << 8;
            let long = 0b0010_0000 | (len - 2) | distance << 10;
            let (code, count) = if near { (short, 2) } else { (long, 3) };
            self.put_some(&[low(code), low(code >> 8), low(code >> 16)], count);
        } else {
            self.put_length(0b0010_0000, 5, len - 2);
            self.put(&[low(distance << 2), low(distance >> 6)]);
        }
        self.state_at = Some(self.len - 2);
    }

    fn zeros(&mut self, count: usize) {
        self.literals_from += count;
        let count = count - ZEROS.start();
        self.put(&[0b0001_1000 | low(count & 7), 0b1111_1100, 0xff, low(count >> 3)]);
        self.state_at = Some(self.len - 3);
    }
}

/// The low eight bits.
#[expect(clippy::cast_possible_truncation, reason = "what is wanted")]
fn low(value: usize) -> u8 {
    value as u8
}
