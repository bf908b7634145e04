//! Any bytes as a stream of `lz4hc`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::codec::decoder("lz4hc", data));
