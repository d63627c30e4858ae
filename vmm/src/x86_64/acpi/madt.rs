//! The MADT (ACPI 6.5, 5.2.12): CPUs and interrupt controllers.

use acpi_tables::{
    madt::{EnabledStatus, IoApic, ProcessorLocalApic},
    sdt::Sdt,
};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes};
use crate::x86_64::layout::{ACPI_IRQ, IO_APIC, LOCAL_APIC};

/// Header, address of the local APICs, flags.
const START: u32 = 44;
const REVISION: u8 = 5;
/// PCAT_COMPAT: there are two 8259 as well.
const DUAL_8259: u32 = 1;

/// The table for `cpus` CPUs, whose APIC IDs count from 0.
///
/// Line N of the ISA bus is input N of the IO-APIC: the PIT's, too, which has input 2 on a PC.
pub(super) fn table(cpus: u8) -> Vec<u8> {
    let mut madt = Sdt::new(
        *b"APIC",
        START,
        REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    madt.write_u32(36, LOCAL_APIC);
    madt.write_u32(40, DUAL_8259);
    for cpu in 0..cpus {
        let local = ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled);
        madt.append_slice(&bytes(&local));
    }
    madt.append_slice(&bytes(&IoApic::new(0, IO_APIC, 0)));
    madt.append_slice(&acpi_line());
    madt.append_slice(&LINT1_IS_NMI);
    madt.as_slice().to_vec()
}

/// Interrupt source override (5.2.12.5): ACPI's line is level triggered and active high, unlike the
/// others of the ISA bus (bus 0).
fn acpi_line() -> [u8; 10] {
    const ACTIVE_HIGH_LEVEL: u8 = 1 | 3 << 2;
    [2, 10, 0, ACPI_IRQ, ACPI_IRQ, 0, 0, 0, ACTIVE_HIGH_LEVEL, 0]
}

/// Local APIC NMI (5.2.12.7): LINT1, on every CPU.
const LINT1_IS_NMI: [u8; 6] = [4, 6, 0xff, 0, 0, 1];
