//! Any bytes as a stream of `weft`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::seeds().iter().for_each(|dir| fuzz::codec::seeds("weft", dir)),
    |data: &[u8]| fuzz::codec::decoder("weft", data)
);
