//! Any bytes as a stream of `lzo-rle`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::seeds().iter().for_each(|dir| fuzz::codec::seeds("lzo-rle", dir)),
    |data: &[u8]| fuzz::codec::decoder("lzo-rle", data)
);
