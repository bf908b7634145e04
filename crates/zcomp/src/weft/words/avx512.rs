//! The passes with AVX-512: 64 bytes, which are eight words or a property of 64 words, at once.
//!
//! They make the same bytes as the portable twin, which the tests see to. What they are fast by are VBMI's table of 128 bytes and
//! VBMI2's compress and expand: a set of bytes is taken out of a word, or put back, without a loop over them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{BACK, BLOCK, CHEAPEST, FAR, GROUP, HASH, KEPT, NEW, RAW, SLOTS, SPARE, WORDS, Work};
use crate::Page;
use crate::weft::avx512::*;

/// Compares with the words right before, and finds the entries in the tables.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn compare_near(work: &mut Work, page: &Page, blocks: Range<usize>) {
    let factor = _mm512_set1_epi32(HASH.cast_signed());
    let mut before = match blocks.start {
        0 => _mm512_setzero_si512(),
        start => load::<u8, 64>(from(page, 8 * (start * BLOCK - GROUP))),
    };
    for at in (blocks.start * BLOCK..blocks.end * BLOCK).step_by(GROUP) {
        let these = load::<u8, 64>(from(page, 8 * at));
        let last = _mm512_alignr_epi64::<7>(these, before);
        let last_but_one = _mm512_alignr_epi64::<6>(these, before);
        before = these;
        let differing = [
            _mm512_test_epi8_mask(these, these),
            _mm512_cmpneq_epi8_mask(these, last),
            _mm512_cmpneq_epi8_mask(these, last_but_one),
        ];
        for (all, eight) in work.differing.iter_mut().zip(differing) {
            *from_mut(all, at) = eight.to_le_bytes();
        }
        let high = _mm512_srli_epi64::<48>(these);
        let middle = _mm512_xor_si512(
            _mm512_srli_epi64::<16>(these),
            _mm512_or_si512(high, _mm512_slli_epi64::<16>(high)),
        );
        let [one, other] = [these, middle]
            .map(|key| _mm512_srli_epi32::<{ u32::BITS - SLOTS.ilog2() }>(_mm512_mullo_epi32(key, factor)));
        // Of each word the low 32 bits count: 16 for each slot.
        let pairs = _mm512_or_si512(one, _mm512_slli_epi32::<16>(other));
        store_half::<[u16; 2], GROUP>(from_mut(&mut work.slots, at), _mm512_cvtepi64_epi32(pairs));
    }
}

/// How far back the words are that were looked up, and what differs from them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn compare_earlier(work: &mut Work, page: &Page, blocks: Range<usize>) {
    let words = blocks.start * BLOCK..blocks.end * BLOCK;
    let low = _mm512_set1_epi16(0xff);
    for at in words.clone().step_by(BLOCK / 2) {
        let before = _mm512_add_epi16(
            _mm512_set1_epi16(at.cast_signed() as i16 - 1),
            _mm512_cvtepu8_epi16(load_half::<u8, { BLOCK / 2 }>(from(&NUMBERS, 0))),
        );
        let pairs: &mut [[u8; 2]; BLOCK / 2] = from_mut(&mut work.earlier, at);
        let was = load(pairs);
        let backs = [was, _mm512_srli_epi16::<8>(was)]
            .map(|was| _mm512_and_si512(_mm512_sub_epi16(before, was), low));
        store(pairs, _mm512_or_si512(backs[0], _mm512_slli_epi16::<8>(backs[1])));
        for (back, likes) in backs.into_iter().zip(&mut work.likes) {
            let like = _mm512_max_epi16(_mm512_sub_epi16(before, back), _mm512_setzero_si512());
            store::<u16, { BLOCK / 2 }>(from_mut(likes, at), like);
        }
    }
    for at in words.step_by(GROUP) {
        let these = load::<u8, 64>(from(page, 8 * at));
        for (likes, differing) in work.likes.iter().zip(&mut work.differing[3..]) {
            let likes = words_at(page, from::<u16, GROUP>(likes, at).map(usize::from));
            *from_mut(differing, at) = _mm512_cmpneq_epi8_mask(these, likes).to_le_bytes();
        }
    }
}

/// Chooses the tags, and keeps what they want kept.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
pub(super) fn keep(work: &mut Work, page: &Page, blocks: Range<usize>) {
    let (kept_by, far) = (each_lane(&KEPT), each_lane(&FAR));
    for block in blocks {
        let of = |like: usize, differing: usize| {
            cheapest(&CHEAPEST[like], load::<u8, BLOCK>(from(&work.differing[differing], block * BLOCK)))
        };
        let near = _mm512_min_epu8(_mm512_min_epu8(of(0, 0), of(1, 1)), of(2, 2));
        let (one, other) = (of(3, 3), of(3, 4));
        let choice = _mm512_min_epu8(near, _mm512_min_epu8(one, other));
        let tags = _mm512_and_si512(choice, _mm512_set1_epi8(0x0f));
        store_half::<u8, { BLOCK / 2 }>(from_mut(&mut work.tags, block * BLOCK / 2), in_pairs(tags));
        let raw = _mm512_cmpeq_epi8_mask(tags, _mm512_set1_epi8(RAW.cast_signed()));
        work.found.raw += raw.count_ones() as usize;

        let half = |number: usize| {
            load::<[u8; 2], { BLOCK / 2 }>(from(&work.earlier, block * BLOCK + number * BLOCK / 2))
        };
        let [low, high] = [half(0), half(1)];
        let first = both(_mm512_cvtepi16_epi8(low), _mm512_cvtepi16_epi8(high));
        let second = both(
            _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(low)),
            _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(high)),
        );
        let back = _mm512_mask_blend_epi8(_mm512_cmplt_epu8_mask(other, one), first, second);
        let far = _mm512_movepi8_mask(_mm512_shuffle_epi8(far, tags));
        let distances = _mm512_maskz_compress_epi8(far, back);
        store::<u8, SPARE>(from_mut(&mut work.distances, work.found.distances), distances);
        work.found.distances += far.count_ones() as usize;

        let mut kept = [0u8; BLOCK];
        store(&mut kept, _mm512_shuffle_epi8(kept_by, tags));
        for (group, kept) in kept.as_chunks::<GROUP>().0.iter().enumerate() {
            let kept = u64::from_le_bytes(*kept);
            let these = load::<u8, 64>(from(page, 8 * (block * BLOCK + group * GROUP)));
            let literals = _mm512_maskz_compress_epi8(kept, these);
            store::<u8, SPARE>(from_mut(&mut work.literals, work.found.literals), literals);
            work.found.literals += kept.count_ones() as usize;
        }
    }
}

/// From the order of words to that of the eight words of a group, each with its number in all of the eight groups.
static ACROSS: [u8; BLOCK] = {
    let mut across = [0; BLOCK];
    let mut at = 0;
    while at < BLOCK {
        across[at] = (at % GROUP * GROUP + at / GROUP) as u8;
        at += 1;
    }
    across
};

/// Makes the page; `None` where `data` has others than the tags say, or a word is told by one before the first.
///
/// A word may be like the one right before it, and that like the one before; in memory each would wait for a store. So
/// within a group of eight the words are put together by doubling: after the first step a word has the bytes of the one it is like,
/// after the second those of three before it, after the third of all seven. What is then still missing is of one word before
/// the group, of which the last sixteen are in registers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
pub(super) fn decompress(pairs: &[u8; WORDS / 2], data: &[u8], page: &mut Page) -> Option<()> {
    let (kept_by, far_by, new_by, back_by) =
        (each_lane(&KEPT), each_lane(&FAR), each_lane(&NEW), each_lane(&BACK));
    let mut tags = [[0u8; BLOCK]; WORDS / BLOCK];
    let mut distance_count = 0;
    for (tags, pairs) in tags.iter_mut().zip(pairs.as_chunks::<{ BLOCK / 2 }>().0) {
        let block = one_each(load_half(pairs));
        store(tags, block);
        distance_count += _mm512_movepi8_mask(_mm512_shuffle_epi8(far_by, block)).count_ones() as usize;
    }
    let (mut distances, mut literals) = data.split_at_checked(distance_count)?;
    let (numbers, across, all) = (load(&NUMBERS), load(&ACROSS), _mm512_set1_epi8(-1));
    let in_group = _mm512_and_si512(numbers, _mm512_set1_epi8(GROUP as i8 - 1));
    let low = _mm512_set1_epi64(0xff);
    // The sixteen words before the group.
    let mut last = [_mm512_setzero_si512(); 2];
    for (block, tags) in tags.iter().enumerate() {
        let tags = load(tags);
        let far = _mm512_movepi8_mask(_mm512_shuffle_epi8(far_by, tags));
        let back = _mm512_mask_expand_epi8(_mm512_shuffle_epi8(back_by, tags), far, load_some(distances));
        distances = distances.get(far.count_ones() as usize..)?;
        let new = _mm512_movepi8_mask(_mm512_shuffle_epi8(new_by, tags));
        let within = _mm512_cmplt_epu8_mask(back, in_group) & !new;
        // How far before its group the other word is, less one.
        let before = _mm512_sub_epi8(back, in_group);
        if block < 256 / BLOCK {
            // Farther on every distance that a byte can say is within the page.
            let begin =
                _mm512_add_epi8(_mm512_sub_epi8(numbers, in_group), _mm512_set1_epi8((block * BLOCK) as i8));
            if _mm512_cmpge_epu8_mask(before, begin) & !within & !new != 0 {
                return None;
            }
        }
        // The word that each is like where that is of its group, else itself; then two and four of them on, and the last of all.
        let one = _mm512_mask_sub_epi8(numbers, within, _mm512_add_epi8(numbers, all), back);
        let two = _mm512_permutexvar_epi8(one, one);
        let four = _mm512_permutexvar_epi8(two, two);
        let root = _mm512_permutexvar_epi8(four, four);
        // The bytes that each has after every step.
        let kept = _mm512_shuffle_epi8(kept_by, tags);
        let had = _mm512_mask_mov_epi8(kept, new, all);
        let had_one = _mm512_or_si512(had, _mm512_permutexvar_epi8(one, had));
        let had_two = _mm512_or_si512(had_one, _mm512_permutexvar_epi8(two, had_one));
        let had_four = _mm512_or_si512(had_two, _mm512_permutexvar_epi8(four, had_two));
        let place = _mm512_permutexvar_epi8(root, _mm512_xor_si512(before, all));
        let from_memory = _mm512_cmplt_epu8_mask(place, _mm512_set1_epi8(!(2 * GROUP as u8 - 1) as i8))
            & _mm512_cmpneq_epi8_mask(had_four, all);
        let mut masks = [[0u8; BLOCK]; 4];
        for (masks, bytes) in masks.iter_mut().zip([kept, had_one, had_two, had_four]) {
            store(masks, bytes);
        }
        let [mut one, mut two, mut four, mut place] =
            [one, two, four, place].map(|each| _mm512_permutexvar_epi8(across, each));
        for (group, from_memory) in from_memory.to_le_bytes().into_iter().enumerate() {
            let [kept, had_one, had_two, had_four] =
                masks.each_ref().map(|masks| u64::from_le_bytes(*from::<u8, GROUP>(masks, group * GROUP)));
            let own = _mm512_maskz_expand_epi8(kept, load_some(literals));
            literals = literals.get(kept.count_ones() as usize..)?;
            let own = _mm512_mask_mov_epi8(_mm512_permutexvar_epi64(one, own), kept, own);
            let own = _mm512_mask_mov_epi8(_mm512_permutexvar_epi64(two, own), had_one, own);
            let own = _mm512_mask_mov_epi8(_mm512_permutexvar_epi64(four, own), had_two, own);
            let at = block * BLOCK + group * GROUP;
            let near = _mm512_permutex2var_epi64(last[0], place, last[1]);
            let first = _mm512_set1_epi64(at as i64 - 256);
            // Others are near, or of the group, and what was just stored there would be waited for.
            let far =
                _mm512_maskz_mov_epi64(from_memory, _mm512_add_epi64(_mm512_and_si512(place, low), first));
            let others = _mm512_mask_mov_epi64(near, from_memory, words_at(page, each(far)));
            let words = _mm512_mask_mov_epi8(others, had_four, own);
            store::<u8, 64>(from_mut(page, 8 * at), words);
            last = [last[1], words];
            [one, two, four, place] = [one, two, four, place].map(|each| _mm512_srli_epi64::<8>(each));
        }
    }
    literals.is_empty().then_some(())
}
