//! Any bytes as a stream of `deflate`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::seeds().iter().for_each(|dir| fuzz::codec::seeds("deflate", dir)),
    |data: &[u8]| fuzz::codec::decoder("deflate", data)
);
