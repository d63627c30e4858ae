//! From files to a guest memory that a CPU can start in: kernel, initrd, command line, ACPI, and
//! the structure that tells the kernel where they are.

use std::{
    fs::File,
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
/// A kernel that has nothing better resets by jumping to the BIOS (Linux does on hardware-reduced
/// ACPI without EFI). There is none, so this passes it on to the keyboard controller.
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
    let mut file = File::open(path).map_err(failed("open"))?;
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
mod tests {
    use std::io::Write;

    use vmm_sys_util::tempfile::TempFile;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn kernel(end: u64) -> LoadedKernel {
        LoadedKernel {
            entry: Entry::Pvh { address: 0 },
            end,
            initrd_max: 0x7fff_ffff,
            cmdline_max: 2047,
            setup_header: None,
        }
    }

    fn ram(mib: u64) -> GuestRam {
        let size = usize::try_from(mib * MIB).unwrap();
        GuestRam::from_ranges(&[(GuestAddress(0), size)]).unwrap()
    }

    fn source(cmdline: &Cmdline) -> BootSource<'_> {
        BootSource {
            kernel: Path::new("k"),
            initrd: None,
            cmdline,
            rsdp: Some(ACPI_START),
            pci: false,
        }
    }

    fn file(content: &[u8]) -> TempFile {
        let file = TempFile::new().unwrap();
        file.as_file().write_all(content).unwrap();
        file
    }

    #[test]
    fn the_initrd_goes_to_the_end_of_low_ram() {
        let ram = ram(16);
        let initrd = file(&[0x5a; 5000]);
        let placed = load_initrd(initrd.as_path(), &ram, 16 * MIB, &kernel(2 * MIB)).unwrap();
        assert_eq!((placed.address, placed.size), (16 * MIB - 8192, 5000));
        let last: u8 = ram.read_obj(GuestAddress(placed.address + 4999)).unwrap();
        assert_eq!(last, 0x5a);

        let limited = LoadedKernel {
            initrd_max: 8 * MIB - 1,
            ..kernel(2 * MIB)
        };
        let placed = load_initrd(initrd.as_path(), &ram, 16 * MIB, &limited).unwrap();
        assert_eq!(placed.address, 8 * MIB - 8192);
    }

    #[test]
    fn initrds_that_do_not_work_are_refused() {
        let ram = ram(16);
        let load = |path: &Path, end| {
            let result = load_initrd(path, &ram, 16 * MIB, &kernel(end));
            result.unwrap_err().to_string()
        };
        let small = file(&[1; 8192]);
        let tight = load(small.as_path(), 16 * MIB - 4096);
        assert!(tight.contains("of 8 KiB does not fit: the guest's memory has 4 KiB free"));
        assert!(load(small.as_path(), 99 * MIB).contains("0 bytes free"));
        assert!(load(Path::new("/nonexistent"), MIB).starts_with("could not open the initrd"));
        assert!(load(Path::new("/"), MIB).contains("not a regular file"));
        assert!(load(file(b"").as_path(), MIB).contains("with something in it"));
    }

    #[test]
    fn the_memory_map_leaves_out_the_holes() {
        let gib = 1 << 30;
        let ram = crate::memory::allocate(5 * gib).unwrap();
        assert_eq!(
            memory_map(&ram, true),
            [
                (0, 0x9_fc00, true),
                (0xe_0000, 0x2_0000, false),
                (MIB, 3 * gib - MIB, true),
                (PCI_ECAM, MIB, false),
                (4 * gib, 2 * gib, true),
            ]
        );
        assert_eq!(memory_map(&ram, false).len(), 4);
    }

    #[test]
    fn start_info_points_at_everything() {
        let ram = ram(16);
        let initrd = Placed {
            address: 0x80_0000,
            size: 77,
        };
        let cmdline = Cmdline::new("", true, &[]);
        write_start_info(&ram, Some(initrd), &source(&cmdline)).unwrap();
        let field =
            |offset| -> u64 { ram.read_obj(GuestAddress(PVH_START_INFO + offset)).unwrap() };
        assert_eq!(field(0) & 0xffff_ffff, 0x336e_c578);
        assert_eq!(field(12) & 0xffff_ffff, 1, "modules");
        assert_eq!((field(24), field(32)), (CMDLINE, ACPI_START));
        let module: [u64; 2] = ram.read_obj(GuestAddress(field(16))).unwrap();
        assert_eq!(module, [0x80_0000, 77]);
    }

    #[test]
    fn the_zero_page_points_at_everything() {
        let ram = ram(16);
        let initrd = Placed {
            address: 0x80_0000,
            size: 77,
        };
        let cmdline = Cmdline::new("", true, &[]);
        write_boot_params(&ram, &kernel(0), Some(initrd), &source(&cmdline)).unwrap();
        let word = |offset| -> u32 { ram.read_obj(GuestAddress(ZERO_PAGE + offset)).unwrap() };
        assert_eq!((word(0x218), word(0x21c)), (0x80_0000, 77));
        assert_eq!(u64::from(word(0x228)), CMDLINE);
        assert_eq!(u64::from(word(0x70)), ACPI_START);
        assert_eq!(word(0x1e8) & 0xff, 3, "e820 entries");
    }
}
