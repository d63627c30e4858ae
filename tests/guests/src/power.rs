//! The end of the machine.

use core::hint;

use crate::port;

/// Sleep control of hardware-reduced ACPI, where Ringwire has it; SLP_EN with S5's type.
const SLEEP_CONTROL: u16 = 0x600;
const SOFT_OFF: u8 = 5 << 2 | 1 << 5;
/// QEMU's `-device isa-debug-exit,iobase=0xf4`: it ends with status 1.
const DEBUG_EXIT: u16 = 0xf4;

/// Switches the machine off, by every way it may have.
pub fn off() -> ! {
    port::write(SLEEP_CONTROL, SOFT_OFF);
    port::write(DEBUG_EXIT, 0);
    loop {
        hint::spin_loop();
    }
}
