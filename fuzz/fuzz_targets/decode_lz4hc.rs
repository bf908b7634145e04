//! Any bytes as a stream of `lz4hc`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::seeds().iter().for_each(|dir| fuzz::codec::seeds("lz4hc", dir)),
    |data: &[u8]| fuzz::codec::decoder("lz4hc", data)
);
