//! Any bytes, as a stream and as a page, for `weft` with and without SIMD.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::seeds().iter().for_each(|dir| fuzz::codec::seeds("weft", dir)),
    |data: &[u8]| fuzz::codec::twins(["weft", "weft(simd=0)"], data)
);
