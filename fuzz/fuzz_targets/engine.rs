//! Any bytes as operations of the cache.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::engine::operations(data));
