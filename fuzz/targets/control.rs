//! `make fuzz T=control`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::card::control(data));
