//! Any bytes as a stream of `lzo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::codec::decoder("lzo", data));
