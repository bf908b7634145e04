//! The passes for any processor.

use std::ops::Range;

use super::{BACK, BLOCK, CHEAPEST, FAR, KEPT, NEW, RAW, SLOTS, TAGS, WORDS, Work};
use crate::Page;
use crate::weft::tags::{kept_bits, not_zero, take_kept};

#[inline(always)]
fn word_at(page: &Page, at: usize) -> u64 {
    u64::from_le_bytes(page.as_chunks().0[at % WORDS])
}

/// What differs from the words right before, and the entries in the tables.
pub(super) fn compare_near(work: &mut Work, page: &Page, blocks: Range<usize>) {
    let begin = blocks.start * BLOCK;
    let [mut last_but_one, mut last] =
        if begin == 0 { [0; 2] } else { [begin - 2, begin - 1].map(|at| word_at(page, at)) };
    for at in blocks.start * BLOCK..blocks.end * BLOCK {
        let word = word_at(page, at);
        work.differing[0][at] = not_zero(word);
        work.differing[1][at] = not_zero(word ^ last);
        work.differing[2][at] = not_zero(word ^ last_but_one);
        (last_but_one, last) = (last, word);
        let (low, high) = (word as u32, (word >> 48) as u32);
        work.slots[at] = [slot(low), slot((word >> 16) as u32 ^ (high | high << 16))];
    }
}

#[inline(always)]
fn slot(key: u32) -> u16 {
    (key.wrapping_mul(super::HASH) >> (u32::BITS - SLOTS.ilog2())) as u16
}

/// How far back the words are that were looked up, and what differs from them.
pub(super) fn compare_earlier(work: &mut Work, page: &Page, blocks: Range<usize>) {
    for at in blocks.start * BLOCK..blocks.end * BLOCK {
        let word = word_at(page, at);
        for (earlier, differing) in work.earlier[at].iter_mut().zip(&mut work.differing[3..]) {
            *earlier = (at as u8).wrapping_sub(1).wrapping_sub(*earlier);
            let like = at.saturating_sub(1 + usize::from(*earlier));
            differing[at] = not_zero(word ^ word_at(page, like));
        }
    }
}

/// Chooses the tag, and keeps what it wants kept.
pub(super) fn keep(work: &mut Work, page: &Page, blocks: Range<usize>) {
    for at in blocks.start * BLOCK..blocks.end * BLOCK {
        let [zero, last, last_but_one, one, other] =
            work.differing.each_ref().map(|all| usize::from(all[at]));
        let near = CHEAPEST[0][zero].min(CHEAPEST[1][last]).min(CHEAPEST[2][last_but_one]);
        let (one, other) = (CHEAPEST[3][one], CHEAPEST[3][other]);
        let choice = near.min(one).min(other);
        let tag = usize::from(choice % 16);
        work.tags[at / 2] = work.tags[at / 2] >> 4 | (tag as u8) << 4;
        work.found.raw += usize::from(tag == usize::from(RAW));
        work.distances[work.found.distances] = work.earlier[at][usize::from(other < one)];
        work.found.distances += usize::from(FAR[tag] & 1);
        let kept = word_at(page, at) >> ((8 * TAGS[tag].1) & 63);
        work.literals[work.found.literals..work.found.literals + 8].copy_from_slice(&kept.to_le_bytes());
        work.found.literals += KEPT[tag].count_ones() as usize;
    }
}

/// The bits of the bytes that a tag keeps.
static BITS: [u64; 16] = kept_bits(&TAGS);

/// Makes the page; `None` where `data` has others than the tags say, or a word is told by one before the first.
pub(super) fn decompress(tags: &[u8; WORDS / 2], data: &[u8], page: &mut Page) -> Option<()> {
    let each = || tags.iter().flat_map(|pair| [usize::from(pair & 15), usize::from(pair >> 4)]);
    let (distances, mut literals) = data.split_at_checked(each().filter(|&tag| FAR[tag] != 0).count())?;
    let mut distances = distances.iter();
    let words: &mut [[u8; 8]; WORDS] = page.as_chunks_mut().0.try_into().ok()?;
    for (at, tag) in each().enumerate() {
        let back = if FAR[tag] == 0 { BACK[tag] } else { *distances.next()? };
        let mut word = take_kept(&mut literals, TAGS[tag])? & BITS[tag];
        if NEW[tag] == 0 {
            let like = at.checked_sub(1 + usize::from(back))?;
            word |= u64::from_le_bytes(words[like]) & !BITS[tag];
        }
        words[at] = word.to_le_bytes();
    }
    literals.is_empty().then_some(())
}
