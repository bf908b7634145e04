//! Any bytes as a stream of `zstd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::codec::decoder("zstd", data));
