//! Any bytes as requests and as a control block.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::outside::read(data));
