//! `make fuzz T=pci`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::registers::pci(data));
