#![expect(unsafe_code, reason = "accesses to registers that no driver makes")]
//! Accesses to device registers in every size, and unaligned, as no driver makes them.

use core::arch::asm;

/// How wide an access is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Long,
    /// 8 bytes.
    Quad,
}

impl Width {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Byte, Self::Word, Self::Long, Self::Quad];
}

/// Reads from `address`, the registers of a device.
#[must_use]
pub fn read(address: u64, width: Width) -> u64 {
    let mut value = 0_u64;
    match width {
        // SAFETY: one read in the window of a device: it has no memory of ours. x86 reads unaligned.
        Width::Byte => unsafe {
            asm!("mov {v:l}, byte ptr [{a}]", v = inout(reg) value, a = in(reg) address, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Width::Word => unsafe {
            asm!("mov {v:x}, word ptr [{a}]", v = inout(reg) value, a = in(reg) address, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Width::Long => unsafe {
            asm!("mov {v:e}, dword ptr [{a}]", v = inout(reg) value, a = in(reg) address, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Width::Quad => unsafe {
            asm!("mov {v}, qword ptr [{a}]", v = inout(reg) value, a = in(reg) address, options(nostack, preserves_flags));
        },
    }
    value
}

/// Writes the low bytes of `value` to `address`, the registers of a device.
pub fn write(address: u64, width: Width, value: u64) {
    match width {
        // SAFETY: one write in the window of a device: it has no memory of ours. x86 writes unaligned.
        Width::Byte => unsafe {
            asm!("mov byte ptr [{a}], {v:l}", v = in(reg) value, a = in(reg) address, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Width::Word => unsafe {
            asm!("mov word ptr [{a}], {v:x}", v = in(reg) value, a = in(reg) address, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Width::Long => unsafe {
            asm!("mov dword ptr [{a}], {v:e}", v = in(reg) value, a = in(reg) address, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Width::Quad => unsafe {
            asm!("mov qword ptr [{a}], {v}", v = in(reg) value, a = in(reg) address, options(nostack, preserves_flags));
        },
    }
}
