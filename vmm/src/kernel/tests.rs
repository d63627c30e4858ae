//! Tiny made-up images, whole and broken in each way.

use std::io::Write;

use vm_memory::Bytes;
use vmm_sys_util::tempfile::TempFile;

use super::*;

const RAM: u64 = 64 << 20;

fn ram() -> GuestRam {
    GuestRam::from_ranges(&[(GuestAddress(0), usize::try_from(RAM).unwrap())]).unwrap()
}

fn try_load(image: &[u8]) -> Result<LoadedKernel, KernelError> {
    let file = TempFile::new().unwrap();
    file.as_file().write_all(image).unwrap();
    load(file.as_path(), &ram(), RAM)
}

fn refused(image: &[u8]) -> String {
    try_load(image).unwrap_err().to_string()
}

fn put(image: &mut [u8], offset: usize, bytes: &[u8]) {
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// One setup sector, 64 paragraphs of code.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 1024 + 1024];
    put(&mut image, 0x1f1, &[1]);
    put(&mut image, 0x1f4, &64u32.to_le_bytes());
    put(&mut image, 0x202, b"HdrS");
    put(&mut image, 0x206, &0x020fu16.to_le_bytes());
    put(&mut image, 0x211, &[1]);
    put(&mut image, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut image, 0x236, &3u16.to_le_bytes());
    put(&mut image, 0x238, &2047u32.to_le_bytes());
    put(&mut image, 0x258, &0x100_0000u64.to_le_bytes());
    put(&mut image, 0x260, &0x200_0000u32.to_le_bytes());
    put(&mut image, 1024, b"code");
    image
}

/// A loadable segment at 1 MiB and, if wanted, a note with the PVH entry.
fn elf(pvh: bool) -> Vec<u8> {
    let mut image = vec![0; 0x200];
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    put(&mut image, 16, &2u16.to_le_bytes());
    put(&mut image, 18, &62u16.to_le_bytes());
    put(&mut image, 24, &0x10_0000u64.to_le_bytes());
    put(&mut image, 32, &64u64.to_le_bytes());
    put(&mut image, 54, &56u16.to_le_bytes());
    put(&mut image, 56, &2u16.to_le_bytes());
    let mut program = |at: usize, kind: u32, offset: u64, paddr: u64, filesz: u64, memsz: u64| {
        put(&mut image, at, &kind.to_le_bytes());
        put(&mut image, at + 8, &offset.to_le_bytes());
        put(&mut image, at + 24, &paddr.to_le_bytes());
        put(&mut image, at + 32, &filesz.to_le_bytes());
        put(&mut image, at + 40, &memsz.to_le_bytes());
    };
    program(64, 1, 0x100, 0x10_0000, 4, 0x1000);
    program(120, 4, 0x180, 0, 20, 20);
    put(&mut image, 0x100, b"code");
    let kind: u32 = if pvh { 18 } else { 6 };
    put(&mut image, 0x180, &4u32.to_le_bytes());
    put(&mut image, 0x184, &4u32.to_le_bytes());
    put(&mut image, 0x188, &kind.to_le_bytes());
    put(&mut image, 0x18c, b"Xen\0");
    put(&mut image, 0x190, &0x10_0040u32.to_le_bytes());
    image
}

#[test]
fn a_bzimage_is_loaded_at_1_mib() {
    let file = TempFile::new().unwrap();
    file.as_file().write_all(&bzimage()).unwrap();
    let ram = ram();
    let kernel = load(file.as_path(), &ram, RAM).unwrap();
    let address = 0x10_0200;
    assert_eq!(kernel.entry, Entry::Linux64 { address });
    assert_eq!(kernel.end, 0x300_0000, "where it unpacks itself to");
    assert_eq!(kernel.initrd_max, 0x7fff_ffff);
    let code: [u8; 4] = ram.read_obj(GuestAddress(0x10_0000)).unwrap();
    assert_eq!(&code, b"code");
}

#[test]
fn an_elf_file_is_entered_by_pvh() {
    let kernel = try_load(&elf(true)).unwrap();
    let address = 0x10_0040;
    assert_eq!(kernel.entry, Entry::Pvh { address });
    assert_eq!(kernel.end, 0x10_1000);
    assert!(refused(&elf(false)).contains("has no PVH entry point"));
}

#[test]
fn files_that_are_no_kernels_are_named() {
    for image in [&b""[..], b"MZ", b"hello", &[0; 4096]] {
        assert!(refused(image).contains("is not a kernel: neither a bzImage"));
    }
    let missing = load(Path::new("/nonexistent/kernel"), &ram(), RAM);
    let sentence = missing.unwrap_err().to_string();
    assert_eq!(
        sentence,
        "could not open the kernel '/nonexistent/kernel': No such file or directory (os error 2)"
    );
    let directory = load(Path::new("/"), &ram(), RAM).unwrap_err().to_string();
    assert_eq!(directory, "the kernel '/' is not a regular file");
}

#[test]
fn truncated_images_are_noticed_at_every_length() {
    for (image, whole) in [(bzimage(), 2048), (elf(true), 0x194)] {
        for len in 0..image.len() {
            let result = try_load(&image[..len]);
            assert_eq!(result.is_ok(), len >= whole, "{len}");
        }
    }
    assert!(
        refused(&bzimage()[..2000]).contains("truncated: it has 2000 bytes where at least 2048")
    );
    assert!(refused(&elf(true)[..0x102]).contains("truncated"));
}

#[test]
fn old_and_32_bit_kernels_are_refused() {
    let mut old = bzimage();
    put(&mut old, 0x206, &0x0204u16.to_le_bytes());
    assert!(refused(&old).contains("no 64-bit entry point (boot protocol 2.04"));
    let mut narrow = bzimage();
    put(&mut narrow, 0x236, &0u16.to_le_bytes());
    assert!(refused(&narrow).contains("no 64-bit entry point"));
    let mut narrow = elf(true);
    narrow[4] = 1;
    assert!(refused(&narrow).contains("not a 64-bit x86 ELF file"));
}

#[test]
fn kernels_that_do_not_fit_are_refused() {
    let mut large = bzimage();
    put(&mut large, 0x260, &0x400_0000u32.to_le_bytes());
    assert!(refused(&large).contains("needs guest memory up to 80 MiB, the guest has 64 MiB"));
    let mut large = elf(true);
    put(&mut large, 64 + 40, &u64::MAX.to_le_bytes());
    assert!(refused(&large).contains("give more --memory"));
}

#[test]
fn hostile_elf_headers_are_refused() {
    let mut low = elf(true);
    put(&mut low, 64 + 24, &0x7000u64.to_le_bytes());
    assert!(refused(&low).contains("below 1 MiB"));
    let mut shrinks = elf(true);
    put(&mut shrinks, 64 + 40, &1u64.to_le_bytes());
    assert!(refused(&shrinks).contains("larger in the file than in memory"));
    for (offset, bytes) in [
        (32, &[0xff; 8][..]),
        (54, &[1, 0]),
        (56, &[0, 0]),
        (56, &[0xff; 2]),
    ] {
        let mut odd = elf(true);
        put(&mut odd, offset, bytes);
        assert!(refused(&odd).contains("program headers make no sense"));
    }
    let mut note = elf(true);
    put(&mut note, 0x180, &[0xff; 8]);
    try_load(&note).unwrap_err();
}
