//! Page tables for the 64-bit boot protocol: the first 4 GiB, one to one, in 2 MiB pages.
//!
//! The protocol asks for the kernel, the zero page and the command line (Documentation/arch/x86/
//! boot.rst, "64-bit boot protocol"); early code also looks at ACPI tables and the initrd, and all
//! of them are below 4 GiB.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::PAGE_TABLES;
use devices::GuestRam;

const PAGE: u64 = 0x1000;
const DIRECTORIES: u64 = 4;
const ENTRIES: u64 = 512;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;

/// Writes the tables; returns the value for CR3.
///
/// # Errors
/// Guest memory ends before the tables.
pub fn write(ram: &GuestRam) -> Result<u64, GuestMemoryError> {
    write_at(ram, PAGE_TABLES)
}

/// The same at any page of `ram` that has six pages free; returns the value for CR3.
///
/// # Errors
/// Guest memory ends before the tables.
pub fn write_at(ram: &GuestRam, base: u64) -> Result<u64, GuestMemoryError> {
    let (pml4, pdpt, first) = (base, base + PAGE, base + 2 * PAGE);
    ram.write_obj(pdpt | PRESENT | WRITABLE, GuestAddress(pml4))?;
    for i in 0..DIRECTORIES {
        let directory = first + i * PAGE;
        ram.write_obj(directory | PRESENT | WRITABLE, GuestAddress(pdpt + 8 * i))?;
    }
    // The directories are contiguous, so one index runs through all of them.
    for i in 0..DIRECTORIES * ENTRIES {
        let entry = (i << 21) | PRESENT | WRITABLE | LARGE;
        ram.write_obj(entry, GuestAddress(first + 8 * i))?;
    }
    Ok(pml4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the tables as a CPU does.
    fn translate(ram: &GuestRam, cr3: u64, address: u64) -> Option<u64> {
        let entry = |table: u64, shift: u32| {
            let slot = GuestAddress(table + 8 * ((address >> shift) & 0x1ff));
            let entry: u64 = ram.read_obj(slot).unwrap();
            (entry & PRESENT != 0).then_some(entry & !0xfff | entry & LARGE)
        };
        let pdpt = entry(cr3, 39)?;
        let directory = entry(pdpt, 30)?;
        let page = entry(directory, 21)?;
        assert_eq!(page & LARGE, LARGE);
        Some(page & !0x1f_ffff | address & 0x1f_ffff)
    }

    #[test]
    fn the_first_four_gigabytes_map_to_themselves() {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let cr3 = write(&ram).unwrap();
        for address in [0, 0x1234, 0x10_0000, 0x4000_0000, 0xc765_4321, 0xffff_ffff] {
            assert_eq!(translate(&ram, cr3, address), Some(address));
        }
        assert_eq!(translate(&ram, cr3, 1 << 32), None);
        assert_eq!(translate(&ram, cr3, 1 << 39), None);
    }

    #[test]
    fn memory_that_is_too_small_is_an_error() {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), 0xa000)]).unwrap();
        assert!(write(&ram).is_err());
    }
}
