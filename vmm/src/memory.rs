//! Guest RAM: one memfd, mapped shared, in regions below and above the device hole.
//!
//! Being a file it can be registered and handed on (UMEM, vhost-user); mapped without reservation
//! it costs what the guest touches, so a guest may be given more than the host has free.
//!
//! From huge pages it is reserved as a whole instead: a guest that touched one that is not there any
//! more would end the VMM by a SIGBUS.

use std::{fs::File, io};

use devices::GuestRam;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vm_memory::{
    FileOffset, GuestAddress, GuestRegionCollectionError, GuestRegionMmap, MmapRegion,
    mmap::MmapRegionError,
};

use crate::{
    size::human,
    x86_64::layout::{HOLE_END, HOLE_START},
};

mod huge;
mod transparent;

use huge::HugePages;

/// Smallest guest memory in bytes.
pub const MIN_MEMORY: u64 = 64 << 20;

/// How much more than the host's RAM a guest may be promised: a guest rarely touches all that it
/// has, but sixteen times the host is a typing error.
const MAX_OVERCOMMIT: u64 = 16;

/// Why there is no guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// less than a kernel can start with
    #[error("guest memory of {} is too small: give at least {}", human(*.0), human(MIN_MEMORY))]
    TooSmall(u64),
    /// more than could be meant on this host
    #[error(
        "guest memory of {} is more than {MAX_OVERCOMMIT} times what this host has ({}): give less",
        human(*.size), human(*.host)
    )]
    TooLarge {
        /// What was asked for, in bytes.
        size: u64,
        /// The host's RAM in bytes.
        host: u64,
    },
    /// not whole pages
    #[error("guest memory of {0} bytes is not a multiple of the 4 KiB page")]
    Unaligned(u64),
    /// the kernel knows of no huge pages
    #[error(
        "this host's kernel has no huge pages for guest memory (CONFIG_HUGETLBFS): leave hugepages=on out"
    )]
    NoHugePages,
    /// not whole huge pages
    #[error(
        "guest memory of {} is not a multiple of this host's huge pages, which have {}",
        human(*.size), human(*.page)
    )]
    NotHuge {
        /// What was asked for, in bytes.
        size: u64,
        /// Bytes of a huge page.
        page: u64,
    },
    /// others have them, or nobody set them aside
    #[error(
        "guest memory of {} needs {needed} huge pages of {page}, and {free} are free: {missing} are missing. Set more aside (`sysctl vm.nr_hugepages={sysctl}`), or leave hugepages=on out",
        human(*.size)
    )]
    FewHugePages {
        /// What was asked for, in bytes.
        size: u64,
        /// The same in huge pages.
        needed: u64,
        /// Size of a huge page, in words.
        page: String,
        /// How many are there for us.
        free: u64,
        /// How many more it takes.
        missing: u64,
        /// How many have to be set aside in all.
        sysctl: u64,
    },
    /// the memfd could not be made
    #[error("could not create a memfd of {} for guest memory: {source}{}", human(*.size), hint(source))]
    Memfd {
        /// Its size in bytes.
        size: u64,
        /// What the system said.
        source: io::Error,
    },
    /// the memfd could not be mapped
    #[error("could not map {} of guest memory: {source}", human(*.size))]
    Map {
        /// The region's size in bytes.
        size: u64,
        /// What the system said.
        source: MmapRegionError,
    },
    /// the regions do not fit together
    #[error("could not lay out guest memory: {0}")]
    Layout(#[from] GuestRegionCollectionError),
}

/// What to do about it.
fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EFBIG) => ". `ulimit -f` limits the size of files, and guest memory is one",
        _ => "",
    }
}

/// A piece of RAM: where the guest has it, and where it is in the memfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamRange {
    /// Guest physical address.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// Offset in the memfd.
    pub offset: u64,
}

/// Checks that `size` bytes can be a guest's memory on a host with `host` bytes of RAM.
///
/// # Errors
/// Too small, absurdly large, or not whole pages.
pub fn check_size(size: u64, host: u64) -> Result<(), MemoryError> {
    if size < MIN_MEMORY {
        Err(MemoryError::TooSmall(size))
    } else if size > host.saturating_mul(MAX_OVERCOMMIT) {
        Err(MemoryError::TooLarge { size, host })
    } else if !size.is_multiple_of(4096) {
        Err(MemoryError::Unaligned(size))
    } else {
        Ok(())
    }
}

/// The host's RAM in bytes.
pub fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Splits `size` bytes of RAM around the hole.
pub fn ranges(size: u64) -> Vec<RamRange> {
    let low = size.min(HOLE_START);
    let mut ranges = vec![RamRange {
        start: 0,
        size: low,
        offset: 0,
    }];
    if size > low {
        ranges.push(RamRange {
            start: HOLE_END,
            size: size - low,
            offset: low,
        });
    }
    ranges
}

/// Makes and maps `size` bytes of guest memory: from the huge pages that were set aside on this
/// host, or from ordinary ones (which the kernel may make huge by itself).
///
/// # Errors
/// See [`check_size`]; there are too few huge pages; or the system refuses the memfd or its mapping.
pub fn allocate(size: u64, hugepages: bool) -> Result<GuestRam, MemoryError> {
    check_size(size, host_memory())?;
    if hugepages {
        HugePages::of_this_host().check(size)?;
    }
    let file = memfd(size, hugepages).map_err(|source| MemoryError::Memfd { size, source })?;
    let regions = ranges(size)
        .into_iter()
        .map(|range| map(&file, range, hugepages))
        .collect::<Result<Vec<_>, _>>();
    let regions = regions.map_err(|error| match error {
        // They were there a moment ago.
        MemoryError::Map {
            source: MmapRegionError::Mmap(source),
            ..
        } if hugepages && source.raw_os_error() == Some(libc::ENOMEM) => {
            HugePages::of_this_host().too_few(size)
        }
        error => error,
    })?;
    Ok(GuestRam::from_regions(regions)?)
}

fn memfd(size: u64, hugepages: bool) -> io::Result<File> {
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    flags.set(MemfdFlags::HUGETLB, hugepages);
    let file = File::from(memfd_create("guest-ram", flags)?);
    file.set_len(size)?;
    // Whoever touches memory behind the end of its file gets a SIGBUS: nobody may shorten it.
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn map(file: &File, range: RamRange, hugepages: bool) -> Result<GuestRegionMmap<()>, MemoryError> {
    let failed = |source| MemoryError::Map {
        size: range.size,
        source,
    };
    let io_failed = |source| failed(MmapRegionError::Mmap(source));
    let file = file.try_clone().map_err(io_failed)?;
    let length =
        usize::try_from(range.size).map_err(|_| io_failed(io::ErrorKind::OutOfMemory.into()))?;
    let mapping = MmapRegion::build(
        Some(FileOffset::new(file, range.offset)),
        length,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | if hugepages { 0 } else { libc::MAP_NORESERVE },
    )
    .map_err(failed)?;
    if !hugepages {
        transparent::welcome(&mapping);
    }
    GuestRegionMmap::new(mapping, GuestAddress(range.start))
        .ok_or_else(|| io_failed(io::ErrorKind::InvalidInput.into()))
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn ram_goes_round_the_hole() {
        let range = |start, size, offset| RamRange {
            start,
            size,
            offset,
        };
        assert_eq!(ranges(64 << 20), [range(0, 64 << 20, 0)]);
        assert_eq!(ranges(3 * GIB), [range(0, 3 * GIB, 0)]);
        assert_eq!(
            ranges(3 * GIB + 4096),
            [range(0, 3 * GIB, 0), range(4 * GIB, 4096, 3 * GIB)]
        );
        assert_eq!(
            ranges(8 * GIB),
            [range(0, 3 * GIB, 0), range(4 * GIB, 5 * GIB, 3 * GIB)]
        );
    }

    #[test]
    fn sizes_that_cannot_be_meant_are_refused() {
        assert!(check_size(MIN_MEMORY, GIB).is_ok());
        assert!(check_size(16 * GIB, GIB).is_ok());
        for (size, words) in [
            (
                0,
                "guest memory of 0 bytes is too small: give at least 64 MiB",
            ),
            (MIN_MEMORY - 1, "too small"),
            (
                16 * GIB + 4096,
                "more than 16 times what this host has (1 GiB)",
            ),
            (MIN_MEMORY + 1, "not a multiple of the 4 KiB page"),
        ] {
            let refused = check_size(size, GIB).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }

    /// Whoever touched what is gone then would get a SIGBUS.
    #[test]
    fn nobody_can_shorten_guest_memory() {
        let ram = allocate(MIN_MEMORY, false).unwrap();
        let region = ram.iter().next().unwrap();
        let file = region.file_offset().unwrap().file();
        for length in [0, MIN_MEMORY - 4096, MIN_MEMORY + 4096] {
            let refused = file.set_len(length).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        }
        file.set_len(MIN_MEMORY).unwrap();
    }

    #[test]
    fn both_regions_are_one_file() {
        let ram = allocate(5 * GIB, false).unwrap();
        assert_eq!(ram.num_regions(), 2);
        ram.write_obj(0x1122_3344_5566_7788u64, GuestAddress(4 * GIB))
            .unwrap();
        assert!(ram.write_obj(1u8, GuestAddress(3 * GIB)).is_err());
        let high = ram.find_region(GuestAddress(4 * GIB)).unwrap();
        let place = high.file_offset().unwrap();
        assert_eq!(place.start(), 3 * GIB);
        let mut bytes = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(place.file(), &mut bytes, 3 * GIB).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), 0x1122_3344_5566_7788);
    }
}
