//! Reads the tables back as an operating system does.

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::x86_64::layout::virtio_slot;

fn platform(cpus: u8, virtio_mmio: &[VirtioSlot]) -> Platform<'_> {
    Platform {
        cpus,
        virtio_mmio,
        pci: false,
    }
}

struct Table {
    signature: [u8; 4],
    bytes: Vec<u8>,
}

fn ram() -> GuestRam {
    GuestRam::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap()
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn read(ram: &GuestRam, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

fn table(ram: &GuestRam, address: u64) -> Table {
    assert_eq!(address % 16, 0);
    let header = read(ram, address, 36);
    let length = u32::from_le_bytes(header[4..8].try_into().unwrap());
    let bytes = read(ram, address, length as usize);
    let signature = header[..4].try_into().unwrap();
    assert_eq!(sum(&bytes), 0, "{signature:?}");
    Table { signature, bytes }
}

/// RSDP -> XSDT -> tables, then FADT -> DSDT.
fn all(ram: &GuestRam, rsdp: u64) -> Vec<Table> {
    let root = read(ram, rsdp, 36);
    assert_eq!(&root[..8], b"RSD PTR ");
    assert_eq!(sum(&root[..20]), 0);
    assert_eq!(sum(&root), 0);
    let xsdt = table(ram, u64_at(&root, 24));
    assert_eq!(&xsdt.signature, b"XSDT");
    let entries = xsdt.bytes[36..].chunks(8);
    let mut tables: Vec<_> = entries.map(|entry| table(ram, u64_at(entry, 0))).collect();
    let fadt = tables.iter().find(|t| &t.signature == b"FACP").unwrap();
    let dsdt = table(ram, u64_at(&fadt.bytes, 140));
    tables.push(dsdt);
    tables
}

fn find<'a>(tables: &'a [Table], signature: &[u8; 4]) -> &'a [u8] {
    let table = tables.iter().find(|t| &t.signature == signature);
    &table.unwrap().bytes
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

/// Generic address: I/O space, width, byte access, port.
fn gas(port: u64, bits: u8) -> Vec<u8> {
    let mut gas = vec![1, bits, 0, 1];
    gas.extend(port.to_le_bytes());
    gas
}

#[test]
fn the_fadt_names_the_power_registers() {
    let ram = ram();
    let tables = all(&ram, write(&ram, platform(1, &[])).unwrap());
    let fadt = find(&tables, b"FACP");
    let flags = u32_at(fadt, 112);
    assert_eq!(
        flags >> 20 & 1,
        0,
        "not hardware-reduced: there are PICs and a PIT"
    );
    assert_eq!(flags >> 4 & 3, 3, "no fixed buttons");
    assert_eq!(flags >> 10 & 1, 1, "reset register");
    assert_eq!(fadt[46], 9, "SCI");
    assert_eq!(u32_at(fadt, 48), 0, "no SMI command: always in ACPI mode");
    // PM1a event, PM1a control, PM timer: the old fields, their lengths, the new fields.
    assert_eq!(
        [u32_at(fadt, 56), u32_at(fadt, 64), u32_at(fadt, 76)],
        [0x600, 0x604, 0x608]
    );
    assert_eq!([fadt[88], fadt[89], fadt[91]], [4, 2, 4]);
    assert_eq!(fadt[148..160], gas(0x600, 32));
    assert_eq!(fadt[172..184], gas(0x604, 16));
    assert_eq!(fadt[208..220], gas(0x608, 32));
    assert_eq!(fadt[116..128], gas(0xcf9, 8));
    assert_eq!(fadt[128], 6);
}

#[test]
fn the_facs_is_aligned() {
    let ram = ram();
    let tables = all(&ram, write(&ram, platform(1, &[])).unwrap());
    let facs = u32_at(find(&tables, b"FACP"), 36);
    assert_eq!(facs % 64, 0);
    assert_eq!(&read(&ram, facs.into(), 4), b"FACS");
}

#[test]
fn the_spcr_names_the_serial_port() {
    let ram = ram();
    let tables = all(&ram, write(&ram, platform(1, &[])).unwrap());
    let spcr = find(&tables, b"SPCR");
    assert_eq!((spcr.len(), spcr[36]), (80, 0));
    assert_eq!(spcr[40..52], gas(0x3f8, 8));
    assert_eq!(spcr[52..58], [3, 4, 4, 0, 0, 0]);
}

#[test]
fn the_madt_has_every_cpu_once() {
    let ram = ram();
    let tables = all(&ram, write(&ram, platform(200, &[])).unwrap());
    let madt = find(&tables, b"APIC");
    assert_eq!(madt[36..40], 0xfee0_0000u32.to_le_bytes());
    assert_eq!(u32_at(madt, 40), 1, "PICs as well");
    let mut cpus = Vec::new();
    let mut others = Vec::new();
    let mut rest = &madt[44..];
    while let [kind, length, ..] = *rest {
        let (structure, after) = rest.split_at(usize::from(length));
        match kind {
            0 => cpus.push(structure[3]),
            _ => others.push(structure),
        }
        rest = after;
    }
    assert_eq!(cpus, (0..200).collect::<Vec<_>>());
    let kinds: Vec<_> = others.iter().map(|structure| structure[0]).collect();
    assert_eq!(kinds, [1, 2, 4], "IO-APIC, override, NMI");
    assert_eq!(others[1], [2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0], "the SCI");
}

#[test]
fn the_dsdt_has_the_devices() {
    let ram = ram();
    let slots: Vec<_> = (0..).map_while(virtio_slot).collect();
    let tables = all(&ram, write(&ram, platform(254, &slots)).unwrap());
    let dsdt = find(&tables, b"DSDT");
    for name in [b"_S5_", b"COM1", b"PEVT", b"V000", b"V016"] {
        assert!(contains(dsdt, name), "{}", String::from_utf8_lossy(name));
    }
    assert!(contains(dsdt, b"LNRO0005\0") && contains(dsdt, b"QEMU0001\0"));
    for slot in slots {
        // Memory32Fixed, writable, base, length; then an extended interrupt, edge, line.
        let mut resources = vec![0x86, 9, 0, 1];
        resources.extend(u32::try_from(slot.base).unwrap().to_le_bytes());
        resources.extend(0x1000u32.to_le_bytes());
        resources.extend([0x89, 6, 0, 3, 1]);
        resources.extend(slot.irq.to_le_bytes());
        assert!(contains(dsdt, &resources), "{slot:x?}");
    }
    assert!(!contains(
        find(&all(&ram, write(&ram, platform(1, &[])).unwrap()), b"DSDT"),
        b"V000"
    ));
}

#[test]
fn a_pci_bus_is_described_only_where_it_is() {
    let ram = ram();
    let pci = Platform {
        pci: true,
        ..platform(1, &[])
    };
    let tables = all(&ram, write(&ram, pci).unwrap());
    // One allocation: base, segment, first and last bus.
    let mcfg = find(&tables, b"MCFG");
    assert_eq!(mcfg.len(), 44 + 16);
    assert_eq!(u64_at(mcfg, 44), PCI_ECAM);
    assert_eq!(mcfg[52..56], [0, 0, 0, 0]);
    let dsdt = find(&tables, b"DSDT");
    for name in [
        &b"PCI0"[..],
        b"_CBA",
        b"\x41\xd0\x0a\x08",
        b"\x41\xd0\x0c\x02",
    ] {
        assert!(contains(dsdt, name), "{name:x?}");
    }
    // Memory32Fixed of the configuration space; a window of memory from first to last address.
    let mut ecam = vec![0x86, 9, 0, 0];
    ecam.extend(narrow_u32(PCI_ECAM).to_le_bytes());
    ecam.extend(narrow_u32(ECAM_SIZE).to_le_bytes());
    assert!(contains(dsdt, &ecam));
    let mut window = narrow_u32(PCI_APERTURE.start).to_le_bytes().to_vec();
    window.extend(narrow_u32(PCI_APERTURE.end - 1).to_le_bytes());
    assert!(contains(dsdt, &window));

    let tables = all(&ram, write(&ram, platform(1, &[])).unwrap());
    assert!(tables.iter().all(|table| &table.signature != b"MCFG"));
    assert!(!contains(find(&tables, b"DSDT"), b"PCI0"));
}
