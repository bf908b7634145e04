//! Any bytes as a stream of `lz4`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::seeds().iter().for_each(|dir| fuzz::codec::seeds("lz4", dir)),
    |data: &[u8]| fuzz::codec::decoder("lz4", data)
);
