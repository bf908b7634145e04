//! Any bytes as operations of the cache.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::seeds().iter().for_each(|dir| fuzz::engine::seeds(dir)),
    |data: &[u8]| fuzz::engine::operations(data)
);
