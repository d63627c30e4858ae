//! `make fuzz T=card`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::card::frames(data));
