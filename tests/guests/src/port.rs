#![expect(unsafe_code, reason = "I/O instructions")]
//! I/O ports. Ring 3 may use all of them (IOPL 3).

use core::arch::asm;

/// Writes a byte.
pub fn write(port: u16, value: u8) {
    // SAFETY: touches no memory of ours: none of the devices used here has DMA that ports start.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags));
    }
}

/// Reads a byte.
pub fn read(port: u16) -> u8 {
    let value;
    // SAFETY: as in `write`.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags));
    }
    value
}
