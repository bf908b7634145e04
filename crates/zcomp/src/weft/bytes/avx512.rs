//! The passes with AVX-512, as in the other mode; they make the same bytes as the portable twin.

use std::arch::x86_64::*;

use super::{ALONE, CHEAPEST, FACTORS, FAR, KEPT, SLOTS, Work};
use crate::weft::avx512::*;
use crate::weft::tags::{BLOCK, GROUP, SPARE, WORDS};
use crate::{PAGE_SIZE, Page};

/// The entry of the four bytes at each position.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn hash(work: &mut Work, page: &Page) {
    let factors = FACTORS.map(|factor| _mm512_set1_epi16(factor.cast_signed()));
    for at in (0..PAGE_SIZE).step_by(64) {
        for (odd, slots) in work.slots.iter_mut().enumerate() {
            let [low, high] = [0, 2].map(|more| load_some(&page[at + odd + more..]));
            let sum =
                _mm512_add_epi16(_mm512_mullo_epi16(low, factors[0]), _mm512_mullo_epi16(high, factors[1]));
            let slot = _mm512_srli_epi16::<{ u16::BITS - SLOTS.ilog2() }>(sum);
            store::<u16, 32>(from_mut(slots, at / 2), slot);
        }
    }
}

/// How far back the candidates are, and what differs from them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn compare(work: &mut Work, page: &Page) {
    const HALF: usize = BLOCK / 2;
    const BYTES: i16 = 8;
    let numbers = _mm512_cvtepu8_epi16(load_half::<u8, HALF>(from(&NUMBERS, 0)));
    let in_group = _mm512_and_si512(numbers, _mm512_set1_epi16(GROUP as i16 - 1));
    // For each word the last one before its group: of the first group's, the last of the half before.
    let before_group = _mm512_mask_sub_epi16(
        _mm512_set1_epi16(HALF as i16 - 1),
        !0 << GROUP,
        _mm512_sub_epi16(numbers, in_group),
        _mm512_set1_epi16(1 - HALF as i16),
    );
    let behind =
        _mm512_mullo_epi16(_mm512_add_epi16(in_group, _mm512_set1_epi16(1)), _mm512_set1_epi16(BYTES));
    let mut last = _mm512_setzero_si512();
    for at in (0..WORDS).step_by(HALF) {
        let pairs = [0, HALF / 2].map(|more| load::<[u16; 2], { HALF / 2 }>(from(&work.likes, at + more)));
        let low_halves =
            |[one, other]: [__m512i; 2]| both(_mm512_cvtepi32_epi16(one), _mm512_cvtepi32_epi16(other));
        let first = low_halves(pairs);
        let second = low_halves(pairs.map(|pairs| _mm512_srli_epi32::<16>(pairs)));
        // The last four bytes of a word begin so far behind its first.
        let second = _mm512_subs_epu16(second, _mm512_set1_epi16(BYTES / 2));
        // As far back as the last word before the group.
        let group = _mm512_add_epi16(_mm512_permutex2var_epi16(last, before_group, second), behind);
        last = second;
        let now = _mm512_mullo_epi16(
            _mm512_add_epi16(_mm512_set1_epi16(at as i16), numbers),
            _mm512_set1_epi16(BYTES),
        );
        for (number, candidate) in [first, second, group].into_iter().enumerate() {
            let back = _mm512_sub_epi16(now, candidate);
            let place = _mm512_min_epu16(candidate, _mm512_set1_epi16(PAGE_SIZE as i16 - BYTES));
            store::<u16, HALF>(from_mut(&mut work.back[number], at), back);
            store::<u16, HALF>(from_mut(&mut work.places[number], at), place);
        }
    }
    // Less far back is what the decoder has not yet made when it comes to the group; in the first group also what would be behind.
    let least = _mm_setr_epi16(8, 16, 24, 32, 40, 48, 56, 64);
    for at in (0..WORDS).step_by(GROUP) {
        let these = load::<u8, 64>(from(page, 8 * at));
        *from_mut(&mut work.differing[0], at) = _mm512_test_epi8_mask(these, these).to_le_bytes();
        let none = _mm512_xor_si512(these, _mm512_set1_epi8(-1));
        for number in 0..work.back.len() {
            let there = _mm_cmpge_epi16_mask(load_quarter::<u16, GROUP>(from(&work.back[number], at)), least);
            let places: &[u16; GROUP] = from(&work.places[number], at);
            let likes = _mm512_mask_mov_epi64(none, there, bytes_at(page, places.map(usize::from)));
            *from_mut(&mut work.differing[1 + number], at) =
                _mm512_cmpneq_epi8_mask(these, likes).to_le_bytes();
        }
    }
}

/// For each set of eight words, a bit each, that have a distance of their own: which of them was the last with one, up to each
/// of the eight. Where that was none of them, the last of the eight words before.
static LAST: [[u8; GROUP]; 256] = {
    let mut table = [[0; GROUP]; 256];
    let mut own = 0;
    while own < 256 {
        let (mut word, mut count) = (0, 0);
        while word < GROUP {
            count += (own >> word & 1) as u8;
            table[own][word] = if count == 0 { 15 } else { count - 1 };
            word += 1;
        }
        own += 1;
    }
    table
};

/// The distance in force after each of eight words, where those before ended with `before`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn in_force(own: u8, distances: __m128i, before: __m128i) -> __m128i {
    let which = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(i64::from_le_bytes(LAST[usize::from(own)])));
    _mm_permutex2var_epi16(distances, which, before)
}

/// Chooses the tags, and keeps what they want kept.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
pub(super) fn keep(work: &mut Work, page: &Page) {
    let (kept_by, far_by) = (each_lane(&KEPT), each_lane(&FAR));
    let mut before = _mm_setzero_si128();
    for block in 0..WORDS / BLOCK {
        let [zero, first, second, group] =
            work.differing.each_ref().map(|all| load::<u8, BLOCK>(from(all, block * BLOCK)));
        let alone = cheapest(&CHEAPEST[0], zero);
        let [one, other, third] = [first, second, group].map(|differing| cheapest(&CHEAPEST[2], differing));
        let is_second = _mm512_cmplt_epu8_mask(other, one);
        let two = _mm512_min_epu8(one, other);
        let is_group = _mm512_cmple_epu8_mask(third, two);
        let new = _mm512_min_epu8(two, third);
        let differing = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(first, is_second, second), is_group, group);
        let own = _mm512_cmplt_epu8_mask(new, alone);

        let half = |number: usize| {
            let of =
                |back: usize| load::<u16, 32>(from(&work.back[back], block * BLOCK + number * BLOCK / 2));
            let bits = |mask: u64| (mask >> (number * BLOCK / 2)) as u32;
            _mm512_mask_mov_epi16(_mm512_mask_mov_epi16(of(0), bits(is_second), of(1)), bits(is_group), of(2))
        };
        let back = [half(0), half(1)];
        let mut backs = [0u16; BLOCK];
        for (number, back) in back.into_iter().enumerate() {
            store::<u16, 32>(from_mut(&mut backs, number * BLOCK / 2), back);
        }
        let mut same = [0u8; GROUP];
        for ((same, own), backs) in same.iter_mut().zip(own.to_le_bytes()).zip(backs.as_chunks::<GROUP>().0) {
            let backs = load_quarter(backs);
            let now = in_force(own, _mm_maskz_compress_epi16(own, backs), before);
            *same = _mm_cmpeq_epi16_mask(backs, _mm_alignr_epi8::<14>(now, before));
            before = now;
        }
        let choice = _mm512_min_epu8(alone, new);
        let choice =
            _mm512_mask_min_epu8(choice, u64::from_le_bytes(same), choice, cheapest(&CHEAPEST[1], differing));

        let tags = _mm512_and_si512(choice, _mm512_set1_epi8(0x0f));
        store_half::<u8, { BLOCK / 2 }>(from_mut(&mut work.tags, block * BLOCK / 2), in_pairs(tags));
        let far = _mm512_movepi8_mask(_mm512_shuffle_epi8(far_by, tags));
        let low = both(_mm512_cvtepi16_epi8(back[0]), _mm512_cvtepi16_epi8(back[1]));
        let [one, other] = back.map(|back| _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(back)));
        for (part, bytes) in work.distances.iter_mut().zip([low, both(one, other)]) {
            let bytes = _mm512_maskz_compress_epi8(far, bytes);
            store::<u8, SPARE>(from_mut(part, work.distance_count), bytes);
        }
        work.distance_count += far.count_ones() as usize;

        let mut kept = [0u8; BLOCK];
        store(&mut kept, _mm512_shuffle_epi8(kept_by, tags));
        for (group, kept) in kept.as_chunks::<GROUP>().0.iter().enumerate() {
            let kept = u64::from_le_bytes(*kept);
            let these = load::<u8, 64>(from(page, 8 * (block * BLOCK + group * GROUP)));
            let literals = _mm512_maskz_compress_epi8(kept, these);
            store::<u8, SPARE>(from_mut(&mut work.literals, work.literal_count), literals);
            work.literal_count += kept.count_ones() as usize;
        }
    }
    work.distances[1][work.distance_count] = 0;
}

/// Makes the page; `None` where `data` has others than what the tags say, or a distance is none.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
pub(super) fn decompress(pairs: &[u8; WORDS / 2], data: &[u8], page: &mut Page) -> Option<()> {
    let (kept_by, far_by, alone_by) = (each_lane(&KEPT), each_lane(&FAR), each_lane(&ALONE));
    let mut tags = [[0u8; BLOCK]; WORDS / BLOCK];
    let mut count = 0;
    for (tags, pairs) in tags.iter_mut().zip(pairs.as_chunks::<{ BLOCK / 2 }>().0) {
        let block = one_each(load_half(pairs));
        store(tags, block);
        count += _mm512_movepi8_mask(_mm512_shuffle_epi8(far_by, block)).count_ones() as usize;
    }
    let (mut low, rest) = data.split_at_checked(count)?;
    let (mut high, mut literals) = rest.split_at_checked(count.div_ceil(2))?;
    let mut distances = [0u16; WORDS + BLOCK];
    for distances in distances[..count.next_multiple_of(BLOCK)].as_chunks_mut::<BLOCK>().0 {
        let (lows, highs) = (load_some(low), one_each(_mm512_castsi512_si256(load_some(high))));
        for half in 0..2 {
            let of = |all| {
                _mm512_cvtepu8_epi16(if half == 0 {
                    _mm512_castsi512_si256(all)
                } else {
                    _mm512_extracti64x4_epi64::<1>(all)
                })
            };
            let values = _mm512_or_si512(of(lows), _mm512_slli_epi16::<8>(of(highs)));
            store::<u16, 32>(from_mut(distances, half * 32), values);
        }
        low = low.get(BLOCK..).unwrap_or_default();
        high = high.get(BLOCK / 2..).unwrap_or_default();
    }
    let numbers = _mm_setr_epi16(0, 8, 16, 24, 32, 40, 48, 56);
    // To every byte of a word its lowest; and which byte it is.
    let lowest = _mm512_set_epi64(
        0x0808_0808_0808_0808,
        0,
        0x0808_0808_0808_0808,
        0,
        0x0808_0808_0808_0808,
        0,
        0x0808_0808_0808_0808,
        0,
    );
    let eight = _mm512_set1_epi64(0x0706_0504_0302_0100);
    // The 128 bytes before the group.
    let mut last = [_mm512_setzero_si512(); 2];
    let mut done = 0;
    let mut before = _mm_setzero_si128();
    let mut beyond = 0;
    for (block, tags) in tags.iter().enumerate() {
        let tags = load(tags);
        let far = _mm512_movepi8_mask(_mm512_shuffle_epi8(far_by, tags)).to_le_bytes();
        let alone = _mm512_movepi8_mask(_mm512_shuffle_epi8(alone_by, tags)).to_le_bytes();
        let mut kept = [0u8; BLOCK];
        store(&mut kept, _mm512_shuffle_epi8(kept_by, tags));
        for (group, kept) in kept.as_chunks::<GROUP>().0.iter().enumerate() {
            let at = block * BLOCK + group * GROUP;
            let (far, alone) = (far[group], alone[group]);
            before = in_force(far, load_quarter::<u16, GROUP>(from(&distances, done)), before);
            done += far.count_ones() as usize;
            let now = _mm_add_epi16(_mm_set1_epi16((8 * at) as i16), numbers);
            let from = _mm_sub_epi16(now, before);
            let end = (8 * at).saturating_sub(7);
            let there = _mm_cmplt_epu16_mask(from, _mm_set1_epi16(end as i16)) & !alone;
            beyond |= !(there | alone);
            let begin = _mm_sub_epi16(from, _mm_set1_epi16((8 * at) as i16 - 128));
            let near = _mm_mask_cmplt_epu16_mask(there, begin, _mm_set1_epi16(128));
            let bytes = _mm512_add_epi8(_mm512_shuffle_epi8(_mm512_cvtepu16_epi64(begin), lowest), eight);
            let likes = _mm512_maskz_mov_epi64(near, _mm512_permutex2var_epi8(last[0], bytes, last[1]));
            // Others would be waited for where they were just stored.
            let distant = there & !near;
            let places = _mm512_maskz_cvtepu16_epi64(distant, from);
            let likes = _mm512_mask_mov_epi64(likes, distant, bytes_at(page, each(places)));
            let kept = u64::from_le_bytes(*kept);
            let words = _mm512_mask_expand_epi8(likes, kept, load_some(literals));
            literals = literals.get(kept.count_ones() as usize..)?;
            store::<u8, 64>(from_mut(page, 8 * at), words);
            last = [last[1], words];
        }
    }
    (beyond == 0 && literals.is_empty()).then_some(())
}
