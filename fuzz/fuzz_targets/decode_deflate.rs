//! Any bytes as a stream of `deflate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::codec::decoder("deflate", data));
