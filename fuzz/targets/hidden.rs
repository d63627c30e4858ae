//! `make fuzz T=hidden`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::hidden::run(data));
