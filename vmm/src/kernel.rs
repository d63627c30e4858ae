//! Kernel images: what a file is, whether it is whole, and loading it through linux-loader.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use devices::GuestRam;
use linux_loader::{
    bootparam::setup_header,
    loader::{BzImage, Elf, KernelLoader, PvhBootCapability},
};
use vm_memory::{Address, GuestAddress};

use crate::{
    files,
    size::human,
    x86_64::{layout::HIGH_RAM_START, registers::Entry},
};

mod elf;

/// Why a kernel was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// the file can't be opened or read
    #[error("could not {what} the kernel '{path}': {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// a directory, a device, ...
    #[error("the kernel '{0}' is not a regular file")]
    NotAFile(PathBuf),
    /// neither format
    #[error("'{0}' is not a kernel: neither a bzImage (vmlinuz) nor an ELF file (vmlinux)")]
    NotAKernel(PathBuf),
    /// a file of the right kind that can't be used
    #[error("the kernel '{path}' can't be booted: {why}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// In words.
        why: String,
    },
    /// it ends too early
    #[error("the kernel '{path}' is truncated: it has {size} bytes where at least {needed} belong")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// What its headers promise, in bytes.
        needed: u64,
    },
    /// guest memory has no room
    #[error(
        "the kernel '{path}' needs guest memory up to {}, the guest has {}: give more --memory",
        human(*.needed), human(*.ram)
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// End address of what the kernel needs.
        needed: u64,
        /// End address of low RAM.
        ram: u64,
    },
}

/// A kernel in guest memory.
#[derive(Debug, Clone, Copy)]
pub struct LoadedKernel {
    /// How to enter it.
    pub entry: Entry,
    /// First address after what the kernel occupies while it starts.
    pub end: u64,
    /// Highest address that a byte of the initrd may have.
    pub initrd_max: u64,
    /// Longest command line in bytes, without the NUL.
    pub cmdline_max: usize,
    /// The setup header of a bzImage.
    pub setup_header: Option<setup_header>,
}

/// Offsets in a bzImage (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
mod bzimage {
    /// Bytes of the file that hold all that is looked at here.
    pub(super) const HEADER_END: u64 = 0x268;
    pub(super) const MAGIC: std::ops::Range<usize> = 0x202..0x206;
    /// Boot protocol 2.12, the first with `xloadflags`.
    pub(super) const VERSION_MIN: u16 = 0x020c;
    /// XLF_KERNEL_64: there is a 64-bit entry point ...
    pub(super) const XLF_KERNEL_64: u16 = 1;
    /// ... this far into the protected-mode code.
    pub(super) const ENTRY_64: u64 = 0x200;
    /// A setup_sects of 0 means 4.
    pub(super) const DEFAULT_SETUP_SECTS: u64 = 4;
}

/// PVH says nothing about the initrd's place; Linux keeps to its own limit.
const PVH_INITRD_MAX: u64 = 0x7fff_ffff;

/// Loads the kernel in `path`; `ram_end` is the end of RAM below the hole.
///
/// # Errors
/// The file is missing, no kernel, truncated, of a kind that can't be booted, or too large.
pub fn load(path: &Path, ram: &GuestRam, ram_end: u64) -> Result<LoadedKernel, KernelError> {
    let image = Image::open(path)?;
    let mut magic = [0; bzimage::MAGIC.end];
    let known = image.read_prefix(&mut magic)?;
    if known.starts_with(elf::MAGIC) {
        image.load_elf(ram, ram_end)
    } else if known.get(bzimage::MAGIC) == Some(b"HdrS") {
        image.load_bzimage(ram, ram_end)
    } else {
        Err(KernelError::NotAKernel(path.to_owned()))
    }
}

struct Image<'a> {
    path: &'a Path,
    file: File,
    size: u64,
}

impl<'a> Image<'a> {
    fn open(path: &'a Path) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Io {
            what: "open",
            path: path.to_owned(),
            source,
        };
        let file = files::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(KernelError::NotAFile(path.to_owned()));
        }
        let size = metadata.len();
        Ok(Self { path, file, size })
    }

    fn read_failed(&self, source: io::Error) -> KernelError {
        KernelError::Io {
            what: "read",
            path: self.path.to_owned(),
            source,
        }
    }

    fn unusable(&self, why: impl Into<String>) -> KernelError {
        KernelError::Unusable {
            path: self.path.to_owned(),
            why: why.into(),
        }
    }

    /// As much of the file's start as there is, up to the buffer's length.
    fn read_prefix<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], KernelError> {
        let mut file = &self.file;
        let mut read = || {
            file.rewind()?;
            let mut len = 0;
            while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
                match file.read(rest)? {
                    0 => break,
                    n => len += n,
                }
            }
            Ok(len)
        };
        let len = read().map_err(|e| self.read_failed(e))?;
        Ok(buffer.get(..len).unwrap_or_default())
    }

    /// The file must have `needed` bytes.
    fn require(&self, needed: u64) -> Result<(), KernelError> {
        if self.size < needed {
            return Err(KernelError::Truncated {
                path: self.path.to_owned(),
                size: self.size,
                needed,
            });
        }
        Ok(())
    }

    fn fits(&self, needed: u64, ram: u64) -> Result<(), KernelError> {
        if needed > ram {
            return Err(KernelError::TooLarge {
                path: self.path.to_owned(),
                needed,
                ram,
            });
        }
        Ok(())
    }

    fn load_bzimage(mut self, ram: &GuestRam, ram_end: u64) -> Result<LoadedKernel, KernelError> {
        self.require(bzimage::HEADER_END)?;
        // The loader checks its reads against guest memory, not what the image needs later.
        self.fits(HIGH_RAM_START + self.size, ram_end)?;
        let loaded = BzImage::load(
            ram,
            Some(GuestAddress(HIGH_RAM_START)),
            &mut self.file,
            None,
        )
        .map_err(|e| self.unusable(e.to_string()))?;
        let header = loaded
            .setup_header
            .ok_or_else(|| self.unusable("it has no setup header"))?;
        self.check_bzimage(&header)?;
        let unpacked = header
            .pref_address
            .saturating_add(u64::from(header.init_size));
        let end = loaded.kernel_end.max(unpacked);
        self.fits(end, ram_end)?;
        Ok(LoadedKernel {
            entry: Entry::Linux64 {
                address: HIGH_RAM_START + bzimage::ENTRY_64,
            },
            end,
            initrd_max: u64::from(header.initrd_addr_max),
            cmdline_max: usize::try_from(header.cmdline_size).unwrap_or(usize::MAX),
            setup_header: Some(header),
        })
    }

    fn check_bzimage(&self, header: &setup_header) -> Result<(), KernelError> {
        let version = header.version;
        if version < bzimage::VERSION_MIN || header.xloadflags & bzimage::XLF_KERNEL_64 == 0 {
            return Err(self.unusable(format!(
                "it has no 64-bit entry point (boot protocol {}.{:02}; an x86_64 kernel of 3.8 or later is needed)",
                version >> 8,
                version & 0xff
            )));
        }
        let setup = match u64::from(header.setup_sects) {
            0 => bzimage::DEFAULT_SETUP_SECTS,
            sectors => sectors,
        };
        // syssize counts paragraphs of 16 bytes.
        self.require((setup + 1) * 512 + u64::from(header.syssize) * 16)
    }

    fn load_elf(mut self, ram: &GuestRam, ram_end: u64) -> Result<LoadedKernel, KernelError> {
        let segments = elf::check(&self)?;
        self.require(segments.file_end)?;
        self.fits(segments.memory_end, ram_end)?;
        let loaded =
            Elf::load(ram, None, &mut self.file, None).map_err(|e| self.unusable(e.to_string()))?;
        let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
            return Err(self.unusable(
                "it has no PVH entry point (CONFIG_PVH=y makes one); give the bzImage (vmlinuz) instead",
            ));
        };
        Ok(LoadedKernel {
            entry: Entry::Pvh {
                address: entry.raw_value(),
            },
            end: segments.memory_end,
            initrd_max: PVH_INITRD_MAX,
            cmdline_max: usize::MAX,
            setup_header: None,
        })
    }
}

#[cfg(test)]
mod tests;
