//! `extract_vmlinux` of tests/lib/kernel.sh: the kernel inside a bzImage, however it is compressed. Needs what
//! `make setup` installs.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use ringwire_tests::TempDir;

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What does as a kernel: an ELF magic number, and bytes after it.
fn kernel() -> Vec<u8> {
    let body = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes());
    b"\x7fELF".iter().copied().chain(body).collect()
}

/// The file at `path`, compressed by `program`; `None` if that is not there.
fn compressed(program: &str, path: &Path) -> Option<Vec<u8>> {
    let mut words = program.split(' ');
    let mut command = Command::new(words.next()?);
    command.args(words).arg("-c").arg(path);
    let output = command.stderr(Stdio::null()).output().ok()?;
    assert!(output.status.success(), "{program}");
    Some(output.stdout)
}

/// A bzImage with that payload: one sector of setup, the fields of the boot protocol, what fills up to the payload, and
/// something behind it.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    const PROTECTED_MODE: usize = 1024;
    const OFFSET: usize = 100;
    let mut image = vec![0xcc; PROTECTED_MODE + OFFSET];
    image[0x1f1] = 1;
    let mut put = |at: usize, value: usize| {
        let value = u32::try_from(value).expect("a small file");
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    put(0x248, OFFSET);
    put(0x24c, payload.len());
    image.extend(payload);
    image.extend([0xcc; 50]);
    image
}

fn extract(directory: &TempDir, image: &[u8]) -> Result<Vec<u8>, String> {
    let [from, to] = ["bzImage", "vmlinux"].map(|name| directory.path().join(name));
    fs::write(&from, image).expect("a file in our own directory");
    let script = ". tests/lib/common.sh && . tests/lib/kernel.sh && extract_vmlinux \"$0\" \"$1\"";
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .args([&from, &to])
        .current_dir(TOP)
        .output()
        .expect("bash");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(fs::read(to).expect("the kernel"))
}

#[test]
fn kernels_of_every_compression_are_unpacked() {
    let directory = TempDir::new();
    let plain = directory.path().join("kernel");
    fs::write(&plain, kernel()).expect("a file in our own directory");
    let mut unpacked = 0;
    // The build appends the length, but for gzip, which has it itself.
    for (program, has_length) in [
        ("gzip -n", true),
        ("xz --check=crc32", false),
        ("zstd -q", false),
        ("lz4 -l -q", false),
    ] {
        let Some(mut payload) = compressed(program, &plain) else {
            println!("SKIPPED: there is no {program}");
            continue;
        };
        if !has_length {
            payload.extend(u32::try_from(kernel().len()).expect("small").to_le_bytes());
        }
        let found = extract(&directory, &bzimage(&payload));
        assert!(
            found.as_ref() == Ok(&kernel()),
            "{program}: {:?}",
            found.err()
        );
        unpacked += 1;
    }
    assert!(unpacked > 0, "there is not even gzip");
    let unknown = extract(&directory, &bzimage(b"BZh9 and so on")).unwrap_err();
    assert!(
        unknown.contains("compressed in a way not known here"),
        "{unknown}"
    );
}
