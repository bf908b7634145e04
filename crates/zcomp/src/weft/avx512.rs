//! What the passes with AVX-512 (VBMI, VBMI2) are made of: 64 bytes, which are eight words or a property of 64 words.

use std::arch::x86_64::*;

use super::tags::{BLOCK, GROUP, GROUP_BYTES, SAME_BYTES, WORDS};
use crate::{PAGE_SIZE, Page};

/// Whether the processor has what the passes are compiled for.
pub(super) fn is_there() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("avx512vpopcntdq")
        && is_x86_feature_detected!("popcnt")
}

/// Each byte's entry in a table of 256.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn cheapest(table: &[u8; 256], differing: __m512i) -> __m512i {
    let part = |number: usize| load::<u8, 64>(from(table, 64 * number));
    let low = _mm512_permutex2var_epi8(part(0), differing, part(1));
    let high = _mm512_permutex2var_epi8(part(2), differing, part(3));
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(differing), low, high)
}

/// 0 to 63.
pub(super) const NUMBERS: [u8; BLOCK] = {
    let mut numbers = [0; BLOCK];
    let mut at = 0;
    while at < BLOCK {
        numbers[at] = at as u8;
        at += 1;
    }
    numbers
};

/// The `N` items from `at` on.
#[inline(always)]
pub(super) fn from<T, const N: usize>(items: &[T], at: usize) -> &[T; N] {
    items[at..].first_chunk().expect("the passes stay within their arrays")
}

#[inline(always)]
pub(super) fn from_mut<T, const N: usize>(items: &mut [T], at: usize) -> &mut [T; N] {
    items[at..].first_chunk_mut().expect("the passes stay within their arrays")
}

/// Integers, and arrays of them: any bytes are one.
pub(super) trait Plain {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u64 {}
impl Plain for [u8; 2] {}
impl Plain for [u16; 2] {}

/// 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load<T: Plain, const N: usize>(items: &[T; N]) -> __m512i {
    const { assert!(size_of::<[T; N]>() == size_of::<__m512i>()) };
    // SAFETY: as many bytes can be read there, by the assertion.
    unsafe { _mm512_loadu_si512(items.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store<T: Plain, const N: usize>(items: &mut [T; N], value: __m512i) {
    const { assert!(size_of::<[T; N]>() == size_of::<__m512i>()) };
    // SAFETY: as many bytes can be written there, by the assertion, and any bytes are integers.
    unsafe { _mm512_storeu_si512(items.as_mut_ptr().cast(), value) }
}

/// The first 64 bytes, or zeros after those that there are.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn load_some(items: &[u8]) -> __m512i {
    match items.first_chunk::<64>() {
        Some(chunk) => load(chunk),
        // SAFETY: bytes whose bit is not set are not read, and as many bits are set as there are bytes.
        None => unsafe { _mm512_maskz_loadu_epi8((1 << items.len()) - 1, items.as_ptr().cast()) },
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn both(low: __m256i, high: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_half<T: Plain, const N: usize>(items: &[T; N]) -> __m256i {
    const { assert!(size_of::<[T; N]>() == size_of::<__m256i>()) };
    // SAFETY: as many bytes can be read there, by the assertion.
    unsafe { _mm256_loadu_si256(items.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_half<T: Plain, const N: usize>(items: &mut [T; N], value: __m256i) {
    const { assert!(size_of::<[T; N]>() == size_of::<__m256i>()) };
    // SAFETY: as many bytes can be written there, by the assertion, and any bytes are integers.
    unsafe { _mm256_storeu_si256(items.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_quarter<T: Plain, const N: usize>(items: &[T; N]) -> __m128i {
    const { assert!(size_of::<[T; N]>() == size_of::<__m128i>()) };
    // SAFETY: as many bytes can be read there, by the assertion.
    unsafe { _mm_loadu_si128(items.as_ptr().cast()) }
}

/// Words of a page by their numbers, modulo as many as there are.
///
/// By a load each: the instruction that gathers is made of several times as many on Zen 4, and slow on those processors of
/// Intel's that have to hide what it leaves behind. Pages of words take 1.93 us to compress with it, 1.50 so with numbers
/// from a register, and 1.39 with numbers that are in memory already (AMD EPYC, Zen 4; medians of 9 rounds in turn, 2026-11-23).
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn words_at(page: &Page, numbers: [usize; GROUP]) -> __m512i {
    let words: &[[u8; 8]; WORDS] = from(page.as_chunks().0, 0);
    eight(numbers.map(|number| words[number % WORDS]))
}

/// The eight bytes at each of eight places of a page, the last ones where a place is farther on. As [`words_at`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn bytes_at(page: &Page, places: [usize; GROUP]) -> __m512i {
    eight(places.map(|place| *from(page, place.min(PAGE_SIZE - 8))))
}

/// Eight numbers from a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn each(numbers: __m512i) -> [usize; GROUP] {
    let mut each = [0u64; GROUP];
    store(&mut each, numbers);
    each.map(|number| number as usize)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn eight(words: [[u8; 8]; GROUP]) -> __m512i {
    let [a, b, c, d, e, f, g, h] = words.map(i64::from_le_bytes);
    _mm512_setr_epi64(a, b, c, d, e, f, g, h)
}

/// The table of sixteen in every lane of 16 bytes, for a shuffle.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn each_lane(table: &[u8; 16]) -> __m512i {
    // SAFETY: 16 bytes can be read there.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}

/// Numbers of four bits from a byte each to two to a byte, the first the lower.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn in_pairs(each: __m512i) -> __m256i {
    _mm512_cvtepi16_epi8(_mm512_maddubs_epi16(each, _mm512_set1_epi16(0x1001)))
}

/// And back.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn one_each(pairs: __m256i) -> __m512i {
    let pairs = _mm512_cvtepu8_epi16(pairs);
    let both = _mm512_or_si512(pairs, _mm512_slli_epi16::<4>(pairs));
    _mm512_and_si512(both, _mm512_set1_epi8(0x0f))
}

/// What [`super::tags::tags_of`] gives, without a branch for each group: a group that is not repeated is as often foretold wrongly as not.
#[target_feature(enable = "avx512f,avx512bw,avx512vpopcntdq,popcnt")]
pub(super) fn tags_of(data: &[u8]) -> Option<([u8; WORDS / 2], &[u8])> {
    let (same, rest) = data.split_first_chunk::<SAME_BYTES>()?;
    let mut own = !u64::from_le_bytes(*same);
    let (mut groups, rest) = rest.split_at_checked(GROUP_BYTES * own.count_ones() as usize)?;
    // The bits of a group and those before it.
    let up_to = _mm512_srlv_epi32(
        _mm512_set1_epi32(0xffff),
        _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
    );
    let mut tags = [0; WORDS / 2];
    let mut last = _mm512_setzero_si512();
    for tags in tags.as_chunks_mut::<64>().0 {
        let count = _mm512_popcnt_epi32(_mm512_and_si512(_mm512_set1_epi32(own as i32), up_to));
        let which = _mm512_sub_epi32(count, _mm512_set1_epi32(1));
        // Where there is none yet, it is as the last of the sixteen before.
        let any = _mm512_test_epi32_mask(count, count);
        let these = _mm512_mask_permutexvar_epi32(last, any, which, load_some(groups));
        store(tags, these);
        last = _mm512_permutexvar_epi32(_mm512_set1_epi32(15), these);
        groups = groups.get(GROUP_BYTES * (own as u16).count_ones() as usize..)?;
        own >>= 16;
    }
    Some((tags, rest))
}
