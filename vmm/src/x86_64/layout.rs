//! Where things are in the guest's physical address space, its I/O ports and its interrupt lines.
//!
//! ```text
//! 0            low RAM: boot structures for the kernel's first steps
//! 0x9_fc00     end of usable low RAM
//! 0xe_0000     ACPI tables (where a BIOS has them, so that a kernel can also find them by scanning)
//! 0xf_0000     MultiProcessor table, found by scanning only
//! 0x10_0000    RAM: the kernel, the initrd at its end
//! 3 GiB        hole, with:
//! 0xd000_0000    virtio-mmio windows
//! 0xe000_0000    PCI configuration space (ECAM)
//! 0xe800_0000    PCI BARs
//! 0xfec0_0000    IO-APIC, local APICs, KVM's own pages
//! 4 GiB        the rest of RAM
//! ```

use std::ops::Range;

/// End of usable RAM below 640 KiB; above is the EBDA on a PC.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// RAM from here on is the kernel's to use.
pub const HIGH_RAM_START: u64 = 0x10_0000;
/// Start of the hole that memory-mapped devices live in.
pub const HOLE_START: u64 = 3 << 30;
/// End of the hole; RAM goes on here.
pub const HOLE_END: u64 = 4 << 30;

/// Global descriptor table for the kernel's first instructions.
pub const GDT: u64 = 0x500;
/// `hvm_start_info` (PVH).
pub const PVH_START_INFO: u64 = 0x6000;
/// The module list of PVH: one entry, the initrd.
pub const PVH_MODULES: u64 = 0x6100;
/// The memory map of PVH.
pub const PVH_MEMMAP: u64 = 0x6200;
/// `boot_params`, the "zero page" of the Linux boot protocol.
pub const ZERO_PAGE: u64 = 0x7000;
/// Initial stack pointer.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Page tables for the 64-bit entry: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel command line, with its final NUL.
pub const CMDLINE: u64 = 0x2_0000;
/// Longest command line in bytes with its NUL: Linux's COMMAND_LINE_SIZE on x86.
pub const CMDLINE_MAX: usize = 2048;

/// First of the ACPI tables, the RSDP.
pub const ACPI_START: u64 = 0xe_0000;
/// End of the room for ACPI tables.
pub const ACPI_END: u64 = MP_START;
/// The MultiProcessor table: in what is a BIOS's ROM, where kernels look for it (MultiProcessor
/// Specification 1.4, 4).
pub const MP_START: u64 = 0xf_0000;
/// End of the room for it.
pub const MP_END: u64 = 0xf_f000;
/// What a BIOS has at F000:FFF0: where a real-mode reset continues.
pub const RESET_VECTOR: u64 = 0xf_fff0;

/// First virtio-mmio window; the others follow, a page each.
pub const VIRTIO_MMIO_START: u64 = 0xd000_0000;
/// Configuration space of PCI bus 0 (PCI Express Base Specification, 7.2.2: ECAM), 1 MiB.
pub const PCI_ECAM: u64 = 0xe000_0000;
/// Where the BARs of PCI functions are, and can be moved to. Below 4 GiB, so that every kernel can
/// reach it.
pub const PCI_APERTURE: Range<u64> = 0xe800_0000..0xf000_0000;
/// The IO-APIC that KVM emulates.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Its inputs, which are GSIs 0 to 23. GSIs from here on stand for messages (MSI-X).
pub const IO_APIC_PINS: u32 = 24;
/// The local APICs that KVM emulates.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// A page for KVM's identity map and, after it, three for its task state segment (Intel hosts
/// without unrestricted guest need them; never RAM).
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// See [`KVM_IDENTITY_MAP`].
pub const KVM_TSS: u64 = KVM_IDENTITY_MAP + 0x1000;

/// COM1.
pub const COM1_PORT: u16 = 0x3f8;
/// COM1's interrupt line.
pub const COM1_IRQ: u32 = 4;
/// pvpanic, at QEMU's port.
pub const PVPANIC_PORT: u16 = 0x505;
/// ACPI's power management registers, at QEMU's ports.
pub const POWER_PORT: u16 = 0x600;
/// ACPI's interrupt line (SCI), which nothing raises: the line that it has on all PCs.
pub const ACPI_IRQ: u8 = 9;
/// The reset control register.
pub const RESET_PORT: u16 = 0xcf9;
/// The keyboard controller's command port, for its reset line.
pub const KEYBOARD_PORT: u16 = 0x64;

/// Interrupt lines for virtio-mmio devices: inputs of the IO-APIC that nothing on a PC has.
/// 0 to 4 are timer, keyboard, cascade and serial ports; 8 is the clock; 9 the ACPI interrupt.
const VIRTIO_IRQS: [u32; 17] = [
    5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
];

/// Most virtio-mmio devices that a machine can have.
pub const MAX_VIRTIO_DEVICES: usize = VIRTIO_IRQS.len();

/// Where virtio-mmio device number `index` is; `None` past the last.
pub fn virtio_slot(index: usize) -> Option<VirtioSlot> {
    let irq = *VIRTIO_IRQS.get(index)?;
    let offset = u64::try_from(index).ok()? * VIRTIO_MMIO_SIZE;
    let base = VIRTIO_MMIO_START + offset;
    Some(VirtioSlot { base, irq })
}

/// Size in bytes of a virtio-mmio window.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;

/// A virtio-mmio device's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioSlot {
    /// Guest physical address of its registers.
    pub base: u64,
    /// Its interrupt line (GSI), edge triggered.
    pub irq: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_structures_do_not_overlap() {
        let places = [
            (GDT, 0x100),
            (PVH_START_INFO, 0x38),
            (PVH_MODULES, 0x20),
            (PVH_MEMMAP, 0x18 * 16),
            (ZERO_PAGE, 0x1000),
            (BOOT_STACK - 0xff0, 0xff0),
            (PAGE_TABLES, 6 * 0x1000),
            (CMDLINE, CMDLINE_MAX as u64),
            (LOW_RAM_END, 0),
            (ACPI_START, ACPI_END - ACPI_START),
            (MP_START, MP_END - MP_START),
            (RESET_VECTOR, 16),
        ];
        for pair in places.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
    }

    #[test]
    fn the_places_in_the_hole_do_not_overlap() {
        let virtio = MAX_VIRTIO_DEVICES as u64 * VIRTIO_MMIO_SIZE;
        let places = [
            HOLE_START..HOLE_START,
            VIRTIO_MMIO_START..VIRTIO_MMIO_START + virtio,
            PCI_ECAM..PCI_ECAM + devices::pci::ECAM_SIZE,
            PCI_APERTURE,
            u64::from(IO_APIC)..u64::from(IO_APIC) + 0x1000,
            u64::from(LOCAL_APIC)..u64::from(LOCAL_APIC) + 0x10_0000,
            KVM_IDENTITY_MAP..KVM_TSS + 0x3000,
            HOLE_END..HOLE_END,
        ];
        for pair in places.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{pair:x?}");
        }
        // A window of ECAM is aligned to its size.
        assert!(PCI_ECAM.is_multiple_of(devices::pci::ECAM_SIZE));
    }

    #[test]
    fn virtio_slots_stay_in_the_hole_and_off_the_pc_lines() {
        let slots: Vec<_> = (0..).map_while(virtio_slot).collect();
        assert_eq!(slots.len(), MAX_VIRTIO_DEVICES);
        for slot in &slots {
            assert!(slot.base >= HOLE_START);
            assert!(slot.base + VIRTIO_MMIO_SIZE <= u64::from(IO_APIC));
            assert!(![0, 1, 2, 3, 4, 8, 9].contains(&slot.irq) && slot.irq < 24);
        }
        assert_eq!(virtio_slot(MAX_VIRTIO_DEVICES), None);
    }
}
