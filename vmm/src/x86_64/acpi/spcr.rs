//! The SPCR (Microsoft, "Serial Port Console Redirection Table"): where the serial console is, for a
//! kernel that has nothing else yet. `earlycon` without a place finds it here.

use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes, narrow, port};
use crate::x86_64::layout::{COM1_IRQ, COM1_PORT};

const LENGTH: u32 = 80;
const REVISION: u8 = 2;
/// Interface type: a 16550.
const FULL_16550: u8 = 0;
/// It has a line of the PICs (bit 0) and of the IO-APIC (bit 1).
const BOTH_CONTROLLERS: u8 = 3;
const BAUD_115200: u8 = 7;
const ONE_STOP_BIT: u8 = 1;
const VT_UTF8: u8 = 2;
/// Vendor and device of what is not on PCI.
const NO_PCI: u32 = u32::MAX;

/// The table.
pub(super) fn table() -> Vec<u8> {
    let mut spcr = Sdt::new(
        *b"SPCR",
        LENGTH,
        REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    spcr.write_u8(36, FULL_16550);
    spcr.write_bytes(40, &bytes(&port(COM1_PORT, 8)));
    spcr.write_u8(52, BOTH_CONTROLLERS);
    spcr.write_u8(53, narrow(COM1_IRQ.into()));
    spcr.write_u32(54, COM1_IRQ);
    spcr.write_u8(58, BAUD_115200);
    spcr.write_u8(60, ONE_STOP_BIT);
    spcr.write_u8(62, VT_UTF8);
    spcr.write_u32(64, NO_PCI);
    spcr.as_slice().to_vec()
}
