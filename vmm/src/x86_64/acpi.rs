//! The ACPI tables (ACPI 6.5): RSDP, XSDT, FADT, FACS, MADT, DSDT, SPCR, and with a PCI bus MCFG.
//!
//! They say where the serial port, the virtio-mmio devices, the PCI host bridge and pvpanic are, how
//! many CPUs there are, and which ports power the machine off and reset it. The platform is not a
//! hardware-reduced one: there an operating system leaves the PICs and the PIT alone, without which it
//! has neither interrupts nor ticks when the user switches an APIC off. There is no keyboard and no RTC.

use acpi_tables::{
    Aml,
    aml::{
        AddressSpace as Window, AddressSpaceCacheable, Device, EISAName, IO, Interrupt,
        Memory32Fixed, Name, Package, ResourceTemplate, Scope,
    },
    facs::FACS,
    fadt::{FADTBuilder, Flags, PmProfile},
    gas::{AccessSize, AddressSpace, GAS},
    mcfg::MCFG,
    rsdp::Rsdp,
    sdt::Sdt,
    xsdt::XSDT,
};
use devices::{
    GuestRam,
    pci::ECAM_SIZE,
    power::{AcpiPower, ResetControl},
    pvpanic::PvPanic,
    serial::SERIAL_SIZE,
};
use vm_memory::{Bytes, GuestAddress};

use super::layout::{
    ACPI_END, ACPI_IRQ, ACPI_START, COM1_IRQ, COM1_PORT, PCI_APERTURE, PCI_ECAM, POWER_PORT,
    PVPANIC_PORT, RESET_PORT, VIRTIO_MMIO_SIZE, VirtioSlot,
};

mod madt;
mod spcr;

/// Why the tables are not in guest memory.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// more tables than room for them
    #[error("the ACPI tables take {0} bytes, more than their room below 1 MiB")]
    TooLarge(u64),
    /// guest memory could not be written
    #[error("could not write the ACPI tables into guest memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

const OEM_ID: [u8; 6] = *b"RINGWR";
const OEM_TABLE_ID: [u8; 8] = *b"RINGWIRE";
const OEM_REVISION: u32 = 1;
/// DSDT revision from 2 on: 64-bit integers in AML.
const DSDT_REVISION: u8 = 2;
const SDT_HEADER: u32 = 36;
const FACS_ALIGNMENT: u64 = 64;

/// IAPC_BOOT_ARCH (ACPI 6.5, table 5.10): no VGA to probe, no CMOS clock; neither legacy devices
/// nor a keyboard controller.
const NO_VGA: u16 = 1 << 2;
const NO_CLOCK: u16 = 1 << 5;

/// What the tables describe.
#[derive(Debug, Clone, Copy)]
pub struct Platform<'a> {
    /// Number of CPUs.
    pub cpus: u8,
    /// The virtio-mmio devices.
    pub virtio_mmio: &'a [VirtioSlot],
    /// Whether there is a PCI bus.
    pub pci: bool,
}

/// Writes the tables for `platform`; returns the RSDP's address.
///
/// # Errors
/// They do not fit.
pub fn write(ram: &GuestRam, platform: Platform<'_>) -> Result<u64, AcpiError> {
    let mut writer = Writer {
        ram,
        // The RSDP comes first, for those who scan, and is written last.
        next: ACPI_START + align(Rsdp::len() as u64),
    };
    let dsdt = writer.table(&dsdt(platform))?;
    writer.next = writer.next.next_multiple_of(FACS_ALIGNMENT);
    let facs = writer.table(&bytes(&FACS::new()))?;
    let fadt = writer.table(&fadt(dsdt, facs))?;
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(writer.table(&madt::table(platform.cpus))?);
    xsdt.add_entry(writer.table(&spcr::table())?);
    if platform.pci {
        xsdt.add_entry(writer.table(&mcfg())?);
    }
    let xsdt = writer.table(&bytes(&xsdt))?;
    let rsdp = bytes(&Rsdp::new(OEM_ID, xsdt));
    ram.write_slice(&rsdp, GuestAddress(ACPI_START))?;
    Ok(ACPI_START)
}

struct Writer<'a> {
    ram: &'a GuestRam,
    next: u64,
}

impl Writer<'_> {
    fn table(&mut self, table: &[u8]) -> Result<u64, AcpiError> {
        let at = self.next;
        let end = at + table.len() as u64;
        if end > ACPI_END {
            return Err(AcpiError::TooLarge(end - ACPI_START));
        }
        self.ram.write_slice(table, GuestAddress(at))?;
        self.next = align(end);
        Ok(at)
    }
}

/// Tables start at multiples of 16, as the RSDP must.
fn align(address: u64) -> u64 {
    address.next_multiple_of(16)
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Registers of `bits` in I/O space; byte accesses always work.
fn port(port: u16, bits: u8) -> GAS {
    let space = AddressSpace::SystemIo;
    GAS::new(space, bits, 0, AccessSize::ByteAccess, port.into())
}

/// A block of ACPI's registers.
fn power_port(offset: u64) -> u16 {
    POWER_PORT + u16::from(narrow(offset))
}

fn fadt(dsdt: u64, facs: u64) -> Vec<u8> {
    /// Longer than it would pay (5.2.9): there is no C2, no C3.
    const NO_C2: u16 = 101;
    const NO_C3: u16 = 1001;
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .firmware_ctrl_32(narrow_u32(facs))
        .preferred_pm_profile(PmProfile::Unspecified)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // No fixed buttons, and no clock that could wake.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    fadt.sci_int = u16::from(ACPI_IRQ).into();
    let (event, control) = (power_port(AcpiPower::EVENT), power_port(AcpiPower::CONTROL));
    let timer = power_port(AcpiPower::TIMER);
    fadt.pm1a_evt_blk = u32::from(event).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = port(event, 32);
    fadt.pm1a_cnt_blk = u32::from(control).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = port(control, 16);
    fadt.pm_tmr_blk = u32::from(timer).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm_tmr_blk = port(timer, 32);
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.iapc_boot_arch = (NO_VGA | NO_CLOCK).into();
    fadt.reset_reg = port(RESET_PORT, 8);
    fadt.reset_value = ResetControl::RESET_VALUE;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(OEM_TABLE_ID).into();
    bytes(&fadt.finalize())
}

/// Where the configuration space is (PCI Firmware Specification 3.0, 4.1.2): segment 0, bus 0 only.
fn mcfg() -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(PCI_ECAM, 0, 0, 0);
    bytes(&mcfg)
}

fn dsdt(platform: Platform<'_>) -> Vec<u8> {
    let mut dsdt = Sdt::new(
        *b"DSDT",
        SDT_HEADER,
        DSDT_REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    let mut body = soft_off();
    body.extend(system_bus(com1()));
    body.extend(system_bus(pvpanic()));
    for (index, slot) in platform.virtio_mmio.iter().enumerate() {
        body.extend(system_bus(virtio_mmio(index, *slot)));
    }
    if platform.pci {
        body.extend(system_bus(ecam()));
        body.extend(system_bus(host_bridge()));
    }
    dsdt.append_slice(&body);
    dsdt.as_slice().to_vec()
}

/// A device's AML inside `\_SB`.
fn system_bus(device: Vec<u8>) -> Vec<u8> {
    Scope::raw("\\_SB_".into(), device)
}

/// `_S5`: the SLP_TYP value of soft off. Other sleep states are not there.
fn soft_off() -> Vec<u8> {
    let (kind, zero) = (AcpiPower::S5_SLEEP_TYPE, 0u8);
    bytes(&Name::new(
        "_S5_".into(),
        &Package::new(vec![&kind, &zero, &zero, &zero]),
    ))
}

fn com1() -> Vec<u8> {
    let id = Name::new("_HID".into(), &EISAName::new("PNP0501"));
    let uid = Name::new("_UID".into(), &0u8);
    let io = IO::new(COM1_PORT, COM1_PORT, 1, narrow(SERIAL_SIZE));
    let irq = edge(COM1_IRQ);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&io, &irq]));
    bytes(&Device::new("COM1".into(), vec![&id, &uid, &resources]))
}

/// As QEMU describes it; Linux binds `pvpanic-mmio` to the ID.
fn pvpanic() -> Vec<u8> {
    let id = Name::new("_HID".into(), &"QEMU0001");
    let io = IO::new(PVPANIC_PORT, PVPANIC_PORT, 1, narrow(PvPanic::SIZE));
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&io]));
    bytes(&Device::new("PEVT".into(), vec![&id, &resources]))
}

/// `LNRO0005` is the ID that Linux's virtio_mmio driver has.
fn virtio_mmio(index: usize, slot: VirtioSlot) -> Vec<u8> {
    let id = Name::new("_HID".into(), &"LNRO0005");
    let number = u8::try_from(index).unwrap_or(u8::MAX);
    let uid = Name::new("_UID".into(), &number);
    // DMA is coherent on x86 in any case; Linux asks for it on a hardware-reduced platform.
    let coherent = Name::new("_CCA".into(), &1u8);
    let window = Memory32Fixed::new(true, narrow_u32(slot.base), narrow_u32(VIRTIO_MMIO_SIZE));
    let irq = edge(slot.irq);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&window, &irq]));
    let name = format!("V{number:03}");
    let children: Vec<&dyn Aml> = vec![&id, &uid, &coherent, &resources];
    bytes(&Device::new(name.as_str().into(), children))
}

/// Tells that nothing else lies where the configuration space is: an operating system believes MCFG
/// only if a motherboard resource says the same (PCI Firmware Specification 3.0, 4.1.2).
fn ecam() -> Vec<u8> {
    let id = Name::new("_HID".into(), &EISAName::new("PNP0C02"));
    let uid = Name::new("_UID".into(), &0u8);
    let window = Memory32Fixed::new(false, narrow_u32(PCI_ECAM), narrow_u32(ECAM_SIZE));
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&window]));
    bytes(&Device::new("ECAM".into(), vec![&id, &uid, &resources]))
}

/// The PCI Express host bridge. There is no _PRT, as no function has an interrupt pin, and no _OSC:
/// there is neither hot-plug nor error reporting to be handed over.
fn host_bridge() -> Vec<u8> {
    let id = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
    let compatible = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
    let zero = |name: &str| Name::new(name.into(), &0u8);
    let (uid, segment, bus) = (zero("_UID"), zero("_SEG"), zero("_BBN"));
    let coherent = Name::new("_CCA".into(), &1u8);
    let base = Name::new("_CBA".into(), &PCI_ECAM);
    let buses = Window::new_bus_number(0u16, 0u16);
    let bars = Window::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        narrow_u32(PCI_APERTURE.start),
        narrow_u32(PCI_APERTURE.end - 1),
        None,
    );
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&buses, &bars]));
    let children: Vec<&dyn Aml> = vec![
        &id,
        &compatible,
        &uid,
        &segment,
        &bus,
        &coherent,
        &base,
        &resources,
    ];
    bytes(&Device::new("PCI0".into(), children))
}

/// An edge-triggered, active-high interrupt that nobody shares: what an irqfd gives.
fn edge(line: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, line)
}

fn narrow(size: u64) -> u8 {
    u8::try_from(size).unwrap_or(u8::MAX)
}

/// All that the tables point at is below 4 GiB (`layout`).
fn narrow_u32(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
