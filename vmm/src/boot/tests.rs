//! What ends up where in guest memory.

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
    let ram = crate::memory::allocate(5 * gib, false).unwrap();
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
    let field = |offset| -> u64 { ram.read_obj(GuestAddress(PVH_START_INFO + offset)).unwrap() };
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
