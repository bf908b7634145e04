//! Any bytes as a stream of `zstd`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::seeds().iter().for_each(|dir| fuzz::codec::seeds("zstd", dir)),
    |data: &[u8]| fuzz::codec::decoder("zstd", data)
);
