//! The end of the machine.

use core::hint;

use crate::port;

/// The upper half of ACPI's PM1 control register, where Ringwire has it; SLP_EN with S5's type, 0.
const SLEEP_CONTROL: u16 = 0x605;
const SOFT_OFF: u8 = 1 << 5;
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
