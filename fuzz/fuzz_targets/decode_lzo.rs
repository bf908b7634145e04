//! Any bytes as a stream of `lzo`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::seeds().iter().for_each(|dir| fuzz::codec::seeds("lzo", dir)),
    |data: &[u8]| fuzz::codec::decoder("lzo", data)
);
