//! `make fuzz T=options`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::options::run(data));
