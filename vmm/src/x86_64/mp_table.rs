//! The MultiProcessor table (Intel, MultiProcessor Specification 1.4, chapter 4): CPUs and interrupt lines for
//! kernels that do not use ACPI for them (`acpi=off`, `pci=noacpi`), which else have one CPU and the PICs.

use devices::GuestRam;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{IO_APIC, IO_APIC_PINS, LOCAL_APIC, MP_END, MP_START};

/// Why the table is not in guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MpTableError {
    /// more CPUs than there is room for
    #[error("the MultiProcessor table takes {0} bytes, more than its room below 1 MiB")]
    TooLarge(usize),
    /// guest memory could not be written
    #[error("could not write the MultiProcessor table into guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
}

const FLOATING_POINTER: usize = 16;
const HEADER: usize = 44;
/// SPEC_REV: 1.4.
const SPEC_REVISION: u8 = 4;
const OEM_ID: &[u8; 8] = b"RINGWIRE";
const PRODUCT_ID: &[u8; 12] = b"KVM         ";
/// Of KVM's APICs.
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;
const ISA_BUS: u8 = 0;
const ALL_LOCAL_APICS: u8 = 0xff;

/// Writes the table for `cpus` CPUs, whose APIC IDs count from 0.
///
/// # Errors
/// It does not fit.
pub fn write(ram: &GuestRam, cpus: u8) -> Result<(), MpTableError> {
    let mut table = floating_pointer();
    table.extend(configuration(cpus));
    if table.len() as u64 > MP_END - MP_START {
        return Err(MpTableError::TooLarge(table.len()));
    }
    ram.write_slice(&table, GuestAddress(MP_START))?;
    Ok(())
}

/// What makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    sum.wrapping_neg()
}

/// The structure that a kernel scans for (4.1). The configuration table is right behind it.
fn floating_pointer() -> Vec<u8> {
    let mut pointer = b"_MP_".to_vec();
    pointer.extend(below_4_gib(MP_START + FLOATING_POINTER as u64).to_le_bytes());
    // Its length in paragraphs, the revision, the checksum; there is a table; no IMCR, that is virtual wire mode.
    pointer.extend([1, SPEC_REVISION, 0, 0, 0, 0, 0, 0]);
    set_checksum(&mut pointer, 10);
    pointer
}

fn below_4_gib(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

fn set_checksum(structure: &mut [u8], at: usize) {
    let sum = checksum(structure);
    if let Some(byte) = structure.get_mut(at) {
        *byte = sum;
    }
}

/// The configuration table (4.2): its header and its entries, by type.
fn configuration(cpus: u8) -> Vec<u8> {
    let entries = entries(cpus);
    let length = HEADER + entries.iter().map(Vec::len).sum::<usize>();
    let mut table = b"PCMP".to_vec();
    table.extend(narrow(length).to_le_bytes());
    table.extend([SPEC_REVISION, 0]);
    table.extend(OEM_ID);
    table.extend(PRODUCT_ID);
    // No OEM table.
    table.extend([0; 6]);
    table.extend(narrow(entries.len()).to_le_bytes());
    table.extend(LOCAL_APIC.to_le_bytes());
    // No extended table.
    table.extend([0; 4]);
    table.extend(entries.concat());
    set_checksum(&mut table, 7);
    table
}

fn narrow(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn entries(cpus: u8) -> Vec<Vec<u8>> {
    let io_apic_id = cpus;
    let mut entries: Vec<_> = (0..cpus).map(processor).collect();
    entries.push([&[1, ISA_BUS][..], b"ISA   "].concat());
    const ENABLED: u8 = 1;
    let io_apic = [2, io_apic_id, IO_APIC_VERSION, ENABLED];
    entries.push([&io_apic[..], &IO_APIC.to_le_bytes()].concat());
    // Line N is input N, also beyond those that an ISA bus has: virtio-mmio devices have them, and interrupt as an
    // ISA device does, by an edge.
    let lines = (0..IO_APIC_PINS).map_while(|line| u8::try_from(line).ok());
    let lines = lines.filter(|line| *line != CASCADE);
    entries.extend(lines.map(|line| interrupt(3, INT, line, io_apic_id, line)));
    // Local interrupts: the PICs' on the first CPU's LINT0, NMI on everybody's LINT1.
    entries.push(interrupt(4, EXT_INT, 0, 0, 0));
    entries.push(interrupt(4, NMI, 0, ALL_LOCAL_APICS, 1));
    entries
}

/// The line by which the second PIC reaches the first: no device has it.
const CASCADE: u8 = 2;

/// Interrupt types (table 4-11).
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;

/// A processor entry (4.3.1). Signature and feature flags: a Pentium's, with an FPU and a local APIC. Kernels ask
/// CPUID.
fn processor(id: u8) -> Vec<u8> {
    const ENABLED: u8 = 1;
    const BOOT_PROCESSOR: u8 = 2;
    const SIGNATURE: u32 = 0x600;
    const FPU_APIC: u32 = 1 << 9 | 1;
    let flags = if id == 0 {
        ENABLED | BOOT_PROCESSOR
    } else {
        ENABLED
    };
    let mut entry = vec![0, id, LOCAL_APIC_VERSION, flags];
    entry.extend(SIGNATURE.to_le_bytes());
    entry.extend(FPU_APIC.to_le_bytes());
    entry.extend([0; 8]);
    entry
}

/// An interrupt entry, of an IO-APIC (type 3, 4.3.4) or of local APICs (type 4, 4.3.5), polarity and trigger mode as
/// on the bus.
fn interrupt(kind: u8, interrupt: u8, line: u8, apic: u8, input: u8) -> Vec<u8> {
    vec![kind, interrupt, 0, 0, ISA_BUS, line, apic, input]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Floating pointer, header, and the entries, read back as a kernel does.
    fn read(cpus: u8) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write(&ram, cpus).unwrap();
        let get = |address: u64, len: usize| {
            let mut bytes = vec![0; len];
            ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
            bytes
        };
        let pointer = get(0xf_0000, 16);
        let address = u32::from_le_bytes(pointer[4..8].try_into().unwrap());
        let length = u16::from_le_bytes(get(u64::from(address) + 4, 2).try_into().unwrap());
        let table = get(address.into(), length.into());
        assert_eq!((checksum(&pointer), checksum(&table)), (0, 0));
        let (header, mut rest) = table.split_at(44);
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (entry, after) = rest.split_at(if rest[0] == 0 { 20 } else { 8 });
            entries.push(entry.to_vec());
            rest = after;
        }
        (pointer, header.to_vec(), entries)
    }

    #[test]
    fn it_is_found_and_its_header_counts_its_entries() {
        let (pointer, header, entries) = read(3);
        assert_eq!(&pointer[..4], b"_MP_");
        assert_eq!(pointer[8..10], [1, 4]);
        assert_eq!(pointer[11..], [0; 5]);
        assert_eq!(&header[..4], b"PCMP");
        assert_eq!(&header[8..28], b"RINGWIREKVM         ");
        assert_eq!(usize::from(header[34]), entries.len());
        assert_eq!(header[36..40], 0xfee0_0000u32.to_le_bytes());
    }

    #[test]
    fn every_cpu_is_there_and_the_first_one_boots() {
        for cpus in [1, 2, 254] {
            let (_, _, entries) = read(cpus);
            let processors: Vec<_> = entries.iter().filter(|entry| entry[0] == 0).collect();
            let ids: Vec<_> = processors.iter().map(|entry| entry[1]).collect();
            assert_eq!(ids, (0..cpus).collect::<Vec<_>>());
            assert!(
                (0..)
                    .zip(&processors)
                    .all(|(i, entry)| entry[3] == if i == 0 { 3 } else { 1 })
            );
            let io_apic = entries.iter().find(|entry| entry[0] == 2).unwrap();
            assert!(!ids.contains(&io_apic[1]), "its ID is nobody's");
        }
    }

    #[test]
    fn every_line_that_a_device_has_is_an_input() {
        let (_, _, entries) = read(1);
        let lines: Vec<_> = entries.iter().filter(|entry| entry[0] == 3).collect();
        for irq in [0, 4].into_iter().chain(
            (0..)
                .map_while(super::super::layout::virtio_slot)
                .map(|slot| slot.irq),
        ) {
            let of_line: Vec<_> = lines
                .iter()
                .filter(|entry| u32::from(entry[5]) == irq)
                .collect();
            assert_eq!(of_line.len(), 1, "line {irq}");
            assert_eq!(u32::from(of_line[0][7]), irq);
        }
        assert!(
            entries
                .iter()
                .any(|entry| entry[..2] == [4, 3] && entry[6..] == [0, 0])
        );
        assert!(
            entries
                .iter()
                .any(|entry| entry[..2] == [4, 1] && entry[6..] == [0xff, 1])
        );
    }
}
