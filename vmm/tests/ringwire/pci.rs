//! The PCI bus as a guest's instructions reach it. That Linux works on it is for the tests with guests.

use std::process::Output;

use crate::{
    guest::Code,
    process::{have_kvm, run},
};

/// Configuration space of the entropy device, which is device 1.
const FUNCTION: u32 = 0xe000_0000 + (1 << 15);
const COMMAND: u32 = FUNCTION + 4;
const BAR0: u32 = FUNCTION + 0x10;
/// Where its registers are at first; num_queues is at 18 of the common configuration structure.
const FIRST: u32 = 0xe800_0000;
const NUM_QUEUES: u32 = 18;
/// Command: memory decoding.
const MEMORY: u32 = 2;

/// What the guest printed, word by word.
fn printed(code: &Code, arguments: &[&str]) -> Vec<u16> {
    let kernel = code.clone().power_off().kernel();
    let output: Output = run(kernel.as_path(), arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let words = output.stdout.chunks(2);
    words
        .map(|word| u16::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

#[test]
fn functions_are_found_by_ecam() {
    if !have_kvm() {
        return;
    }
    // Vendor and device; then the vendor of a device that is not there.
    let code = Code::new()
        .print_word(FUNCTION)
        .print_word(FUNCTION + 2)
        .print_word(FUNCTION + (1 << 15));
    assert_eq!(printed(&code, &[]), [0x1af4, 0x1044, 0xffff]);
    // A machine whose devices are all on MMIO has no bus.
    assert_eq!(printed(&code, &["--transport", "mmio"]), [0xffff; 3]);
}

#[test]
fn registers_answer_where_the_bar_is() {
    if !have_kvm() {
        return;
    }
    let second = FIRST + 0x10_0000;
    let code = Code::new()
        .print_word(FIRST + NUM_QUEUES)
        .store(COMMAND, MEMORY)
        .print_word(FIRST + NUM_QUEUES)
        .store(BAR0, second)
        .print_word(FIRST + NUM_QUEUES)
        .print_word(second + NUM_QUEUES)
        // Onto RAM: the register says where it still is.
        .store(BAR0, 0x20_0000)
        .print_word(BAR0 + 2)
        .print_word(second + NUM_QUEUES)
        .store(COMMAND, 0)
        .print_word(second + NUM_QUEUES);
    assert_eq!(
        printed(&code, &[]),
        [0xffff, 1, 0xffff, 1, 0xe810, 1, 0xffff],
        "off, on, left, moved, refused, still there, off"
    );
}
