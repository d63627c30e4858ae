//! What `tests/build-system-tests` made, and places to write to.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

/// Paths of what the tests need, from the environment that `tests/build-system-tests` describes.
#[derive(Debug)]
pub struct Setup;

impl Setup {
    /// The project's top directory.
    #[must_use]
    pub fn top() -> PathBuf {
        path("RINGWIRE_TOP")
    }

    /// The `ringwire` program.
    #[must_use]
    pub fn ringwire() -> PathBuf {
        path("RINGWIRE_BIN")
    }

    /// Debian's kernel as it comes, a bzImage.
    #[must_use]
    pub fn bzimage() -> PathBuf {
        path("RINGWIRE_KERNEL")
    }

    /// The same kernel as uncompressed ELF, which boots through its PVH entry.
    #[must_use]
    pub fn vmlinux() -> PathBuf {
        path("RINGWIRE_VMLINUX")
    }

    /// The test guest, of `tests/guest/make-initramfs`.
    #[must_use]
    pub fn initrd() -> PathBuf {
        path("RINGWIRE_INITRD")
    }

    /// Other kernels as ELF, each with a test guest that has its modules.
    #[must_use]
    pub fn other_kernels() -> Vec<(PathBuf, PathBuf)> {
        let text = path("RINGWIRE_OTHER_KERNELS");
        let text = text.to_string_lossy();
        let pairs = text
            .split_whitespace()
            .filter_map(|pair| pair.split_once(':'));
        pairs
            .map(|(kernel, initrd)| (kernel.into(), initrd.into()))
            .collect()
    }

    /// Loads modules of the kernel that the tests run on, which in the lab is one of those that were unpacked for it.
    /// Elsewhere the kernel loads by itself what it is asked for. What it has not shows when it is used.
    ///
    /// # Panics
    /// There is no `modprobe`.
    pub fn load_modules(names: &[&str]) {
        if env::var("RINGWIRE_LAB").as_deref() != Ok("1") {
            return;
        }
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernels = Self::other_kernels().into_iter().map(|(kernel, _)| kernel);
        for kernel in kernels.chain([Self::vmlinux()]) {
            // It is DIR/boot/vmlinux.
            let directory = kernel.ancestors().nth(2).unwrap_or(&kernel);
            if !directory.join("lib/modules").join(release.trim()).exists() {
                continue;
            }
            for name in names {
                let mut command = Command::new("modprobe");
                let status = command.arg("-d").arg(directory).arg(name).status();
                let status = status.unwrap_or_else(|error| panic!("modprobe: {error}"));
                println!("module {name}: {status}");
            }
            return;
        }
    }

    /// An XDP program with its map of sockets, compiled, for tests that attach one as others would.
    #[must_use]
    pub fn xsk_object() -> PathBuf {
        path("RINGWIRE_XSK_OBJECT")
    }

    /// The program of vmm's tests of the `ringwire` command.
    #[must_use]
    pub fn vmm_tests() -> PathBuf {
        path("RINGWIRE_VMM_TESTS")
    }

    /// The `wirecheck` program, for this side of the wire; the guest has it in its `/bin`.
    #[must_use]
    pub fn wirecheck() -> PathBuf {
        path("RINGWIRE_WIRECHECK")
    }
}

fn path(variable: &str) -> PathBuf {
    env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set; run these tests with 'make test'"))
        .into()
}

/// A number that no other object of this process got, for names.
pub(crate) fn serial() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A directory that is removed when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes it, under the system's directory for such.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn new() -> Self {
        let path = env::temp_dir().join(format!("ringwire-test-{}-{}", process::id(), serial()));
        fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("making {} failed: {error}", path.display()));
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for TempDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
