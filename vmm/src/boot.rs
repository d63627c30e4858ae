//! From files to a guest memory that a CPU can start in: kernel, initrd, command line, ACPI, and
//! the structure that tells the kernel where they are.

use std::{
    io,
    path::{Path, PathBuf},
};

use devices::{GuestRam, pci::ECAM_SIZE};
use linux_loader::{
    bootparam::{boot_e820_entry, boot_params},
    configurator::{
        BootConfigurator, BootParams, linux::LinuxBootConfigurator, pvh::PvhBootConfigurator,
    },
    loader::elf::start_info::{
        XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_RESERVED, XEN_HVM_START_MAGIC_VALUE,
        hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
    },
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::{
    cmdline::{Cmdline, CmdlineError},
    files,
    kernel::{self, KernelError, LoadedKernel},
    size::human,
    x86_64::{
        layout::{
            ACPI_START, CMDLINE, HIGH_RAM_START, LOW_RAM_END, PCI_ECAM, PVH_MEMMAP, PVH_MODULES,
            PVH_START_INFO, RESET_VECTOR, ZERO_PAGE,
        },
        registers::Entry,
    },
};

/// Why a guest can't start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// the kernel
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// the command line
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// the initrd can't be opened or read
    #[error("could not {what} the initrd '{path}': {source}")]
    Initrd {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// a directory, a device, an empty file
    #[error("the initrd '{0}' is not a regular file with something in it")]
    InitrdKind(PathBuf),
    /// the initrd does not fit
    #[error(
        "the initrd '{path}' of {} does not fit: the guest's memory has {} free for it after the kernel; give more --memory",
        human(*.size), human(*.room)
    )]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// Bytes free.
        room: u64,
    },
    /// boot structures could not be written
    #[error("could not write {what} into guest memory: {why}")]
    Write {
        /// Which structure.
        what: &'static str,
        /// What went wrong.
        why: String,
    },
}

/// What a guest boots.
#[derive(Debug, Clone, Copy)]
pub struct BootSource<'a> {
    /// The kernel image.
    pub kernel: &'a Path,
    /// The initial RAM disk.
    pub initrd: Option<&'a Path>,
    /// The command line.
    pub cmdline: &'a Cmdline,
    /// Where the ACPI tables are, if there are any.
    pub rsdp: Option<u64>,
    /// Whether there is a PCI bus.
    pub pci: bool,
}

/// A piece of guest memory.
#[derive(Debug, Clone, Copy)]
struct Placed {
    address: u64,
    size: u64,
}

/// Real-mode code at the reset vector: mov al, 0xfe; out 0x64, al; hlt; jmp to the hlt.
///
/// A kernel that has nothing better resets by jumping to the BIOS (Linux does with `reboot=b`). There is
/// none, so this passes it on to the keyboard controller.
const RESET_CODE: [u8; 7] = [0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];

/// Fills guest memory; returns how to enter the kernel.
///
/// # Errors
/// A file is missing, wrong or does not fit.
pub fn load(ram: &GuestRam, source: &BootSource<'_>) -> Result<Entry, BootError> {
    let ram_end = low_ram_end(ram);
    let kernel = kernel::load(source.kernel, ram, ram_end)?;
    let initrd = source
        .initrd
        .map(|path| load_initrd(path, ram, ram_end, &kernel))
        .transpose()?;
    ram.write_slice(&RESET_CODE, GuestAddress(RESET_VECTOR))
        .map_err(|e| write_failed("the reset vector", &e))?;
    let cmdline = source.cmdline.bytes(kernel.cmdline_max)?;
    ram.write_slice(&cmdline, GuestAddress(CMDLINE))
        .map_err(|e| write_failed("the command line", &e))?;
    match kernel.entry {
        Entry::Linux64 { .. } => write_boot_params(ram, &kernel, initrd, source)?,
        Entry::Pvh { .. } => write_start_info(ram, initrd, source)?,
    }
    Ok(kernel.entry)
}

fn write_failed(what: &'static str, why: &dyn std::fmt::Display) -> BootError {
    let why = why.to_string();
    BootError::Write { what, why }
}

/// End of the RAM that starts at 0.
fn low_ram_end(ram: &GuestRam) -> u64 {
    let first = ram.find_region(GuestAddress(0));
    first.map_or(0, GuestMemoryRegion::len)
}

/// Puts the initrd as high as RAM below the hole and the kernel's limit allow.
fn load_initrd(
    path: &Path,
    ram: &GuestRam,
    ram_end: u64,
    kernel: &LoadedKernel,
) -> Result<Placed, BootError> {
    let failed = |what| {
        let path = path.to_owned();
        move |source| BootError::Initrd { what, path, source }
    };
    let mut file = files::open(path).map_err(failed("open"))?;
    let metadata = file.metadata().map_err(failed("open"))?;
    let size = metadata.len();
    if !metadata.is_file() || size == 0 {
        return Err(BootError::InitrdKind(path.to_owned()));
    }
    let top = ram_end.min(kernel.initrd_max.saturating_add(1)) & !0xfff;
    let room = top.saturating_sub(kernel.end.next_multiple_of(0x1000));
    if size > room {
        let path = path.to_owned();
        return Err(BootError::InitrdTooLarge { path, size, room });
    }
    let address = (top - size) & !0xfff;
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    ram.read_exact_volatile_from(GuestAddress(address), &mut file, length)
        .map_err(|e| failed("read")(io::Error::other(e)))?;
    Ok(Placed { address, size })
}

/// Usable RAM, the room of ACPI tables and reset vector, and PCI's configuration space, which no
/// kernel may use otherwise (Linux wants ECAM reserved here before it believes MCFG); by address.
fn memory_map(ram: &GuestRam, pci: bool) -> Vec<(u64, u64, bool)> {
    let mut map = vec![
        (0, LOW_RAM_END, true),
        (ACPI_START, HIGH_RAM_START - ACPI_START, false),
    ];
    for region in ram.iter() {
        let start = region.start_addr().0;
        let end = start + region.len();
        let start = start.max(HIGH_RAM_START);
        map.push((start, end.saturating_sub(start), true));
    }
    if pci {
        map.push((PCI_ECAM, ECAM_SIZE, false));
    }
    map.sort_unstable();
    map
}

fn narrow(value: u64) -> u32 {
    // Everything that boot structures point at is below 4 GiB.
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The zero page (Documentation/arch/x86/zero-page.rst).
fn write_boot_params(
    ram: &GuestRam,
    kernel: &LoadedKernel,
    initrd: Option<Placed>,
    source: &BootSource<'_>,
) -> Result<(), BootError> {
    const LOADER_UNDEFINED: u8 = 0xff;
    const E820_RAM: u32 = 1;
    const E820_RESERVED: u32 = 2;
    let mut params = boot_params {
        hdr: kernel.setup_header.unwrap_or_default(),
        acpi_rsdp_addr: source.rsdp.unwrap_or_default(),
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = narrow(CMDLINE);
    if let Some(Placed { address, size }) = initrd {
        params.hdr.ramdisk_image = narrow(address);
        params.hdr.ramdisk_size = narrow(size);
    }
    let map = memory_map(ram, source.pci);
    // A packed structure's arrays can't be borrowed in place.
    let mut table = params.e820_table;
    for (slot, &(addr, size, usable)) in table.iter_mut().zip(&map) {
        let kind = if usable { E820_RAM } else { E820_RESERVED };
        *slot = boot_e820_entry {
            addr,
            size,
            r#type: kind,
        };
    }
    params.e820_table = table;
    params.e820_entries = u8::try_from(map.len()).unwrap_or(u8::MAX);
    let params = BootParams::new(&params, GuestAddress(ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, ram)
        .map_err(|e| write_failed("the zero page", &e))
}

/// `hvm_start_info` (xen, public/arch-x86/hvm/start_info.h), version 1.
fn write_start_info(
    ram: &GuestRam,
    initrd: Option<Placed>,
    source: &BootSource<'_>,
) -> Result<(), BootError> {
    let map: Vec<_> = memory_map(ram, source.pci)
        .into_iter()
        .map(|(addr, size, usable)| hvm_memmap_table_entry {
            addr,
            size,
            type_: if usable {
                XEN_HVM_MEMMAP_TYPE_RAM
            } else {
                XEN_HVM_MEMMAP_TYPE_RESERVED
            },
            reserved: 0,
        })
        .collect();
    let mut info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: source.rsdp.unwrap_or_default(),
        memmap_paddr: PVH_MEMMAP,
        memmap_entries: u32::try_from(map.len()).unwrap_or(u32::MAX),
        ..Default::default()
    };
    if initrd.is_some() {
        info.nr_modules = 1;
        info.modlist_paddr = PVH_MODULES;
    }
    let mut params = BootParams::new(&info, GuestAddress(PVH_START_INFO));
    params.set_sections(&map, GuestAddress(PVH_MEMMAP));
    if let Some(Placed { address, size }) = initrd {
        let module = hvm_modlist_entry {
            paddr: address,
            size,
            ..Default::default()
        };
        params.set_modules(&[module], GuestAddress(PVH_MODULES));
    }
    PvhBootConfigurator::write_bootparams(&params, ram)
        .map_err(|e| write_failed("the PVH start info", &e))
}

#[cfg(test)]
mod tests;
