//! `make fuzz T=mmio`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::registers::mmio(data));
