//! The passes for any processor.

use super::{ALONE, CHEAPEST, FACTORS, FAR, KEPT, SLOTS, TAGS, Work};
use crate::Page;
use crate::weft::tags::{GROUP, WORDS, kept_bits, not_zero, take_kept};

#[inline(always)]
fn eight(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// The entry of the four bytes at each position.
pub(super) fn hash(work: &mut Work, page: &Page) {
    for (odd, slots) in work.slots.iter_mut().enumerate() {
        // Of the last three there are no four bytes, and none is looked up.
        for (slot, four) in slots.iter_mut().zip(page[odd..].windows(4).step_by(2)) {
            let word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            let sum = (word as u16)
                .wrapping_mul(FACTORS[0])
                .wrapping_add(((word >> 16) as u16).wrapping_mul(FACTORS[1]));
            *slot = sum >> (u16::BITS - SLOTS.ilog2());
        }
    }
}

/// How far back the candidates are, and what differs from them.
pub(super) fn compare(work: &mut Work, page: &Page) {
    let (mut last, mut last_of_group) = (0, 0);
    for at in 0..WORDS {
        if at % GROUP == 0 {
            last_of_group = last;
        }
        let word = eight(page, 8 * at);
        work.differing[0][at] = not_zero(word);
        let [first, second] = work.likes[at];
        let second = second.saturating_sub(4);
        let group = last_of_group + 8 * (1 + at % GROUP) as u16;
        for (number, from) in [first, second, group].into_iter().enumerate() {
            work.back[number][at] = (8 * at as u16).wrapping_sub(from);
            let from = usize::from(from);
            // Farther on is what the decoder has not yet made when it comes to this group of words.
            let there = from + 8 <= 8 * (at - at % GROUP);
            let differing = not_zero(word ^ eight(page, from));
            work.differing[1 + number][at] = if there { differing } else { u8::MAX };
        }
        last = second;
    }
}

/// Chooses the tags, and keeps what they want kept.
pub(super) fn keep(work: &mut Work, page: &Page) {
    let mut distance = 0;
    for at in 0..WORDS {
        let [zero, first, second, group] = work.differing.each_ref().map(|all| usize::from(all[at]));
        let mut best = (CHEAPEST[2][first], first, work.back[0][at]);
        if CHEAPEST[2][second] < best.0 {
            best = (CHEAPEST[2][second], second, work.back[1][at]);
        }
        if CHEAPEST[2][group] <= best.0 {
            best = (CHEAPEST[2][group], group, work.back[2][at]);
        }
        let (new, differing, back) = best;
        let alone = CHEAPEST[0][zero];
        let mut choice = alone.min(new);
        if back == distance {
            choice = choice.min(CHEAPEST[1][differing]);
        }
        if new < alone {
            distance = back;
        }
        let tag = usize::from(choice % 16);
        work.tags[at / 2] = work.tags[at / 2] >> 4 | (tag as u8) << 4;
        for (part, byte) in work.distances.iter_mut().zip(back.to_le_bytes()) {
            part[work.distance_count] = byte;
        }
        work.distance_count += usize::from(FAR[tag] & 1);
        let kept = eight(page, 8 * at) >> ((8 * TAGS[tag].1) & 63);
        work.literals[work.literal_count..work.literal_count + 8].copy_from_slice(&kept.to_le_bytes());
        work.literal_count += KEPT[tag].count_ones() as usize;
    }
    work.distances[1][work.distance_count] = 0;
}

/// The bits of the bytes that a tag keeps.
static BITS: [u64; 16] = kept_bits(&TAGS);

/// Makes the page; `None` where `data` has others than what the tags say, or a distance is none.
pub(super) fn decompress(tags: &[u8; WORDS / 2], data: &[u8], page: &mut Page) -> Option<()> {
    let each = || tags.iter().flat_map(|pair| [usize::from(pair & 15), usize::from(pair >> 4)]);
    let count = each().filter(|&tag| FAR[tag] != 0).count();
    let (low, rest) = data.split_at_checked(count)?;
    let (high, mut literals) = rest.split_at_checked(count.div_ceil(2))?;
    let high = high.iter().flat_map(|pair| [pair & 15, pair >> 4]);
    let mut distances = low.iter().zip(high).map(|(&low, high)| usize::from(u16::from_le_bytes([low, high])));
    let mut distance = 0;
    for (at, tag) in each().enumerate() {
        if FAR[tag] != 0 {
            distance = distances.next()?;
        }
        let mut word = take_kept(&mut literals, TAGS[tag])? & BITS[tag];
        if ALONE[tag] == 0 {
            let from = (8 * at).checked_sub(distance)?;
            if from + 8 > 8 * (at - at % GROUP) {
                return None;
            }
            word |= eight(page, from) & !BITS[tag];
        }
        page[8 * at..8 * at + 8].copy_from_slice(&word.to_le_bytes());
    }
    literals.is_empty().then_some(())
}
