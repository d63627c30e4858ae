#![expect(unsafe_code, reason = "madvise has no safe wrapper")]
//! Transparent huge pages for memory that has none of its own.

use rustix::mm::{Advice, madvise};
use vm_memory::MmapRegion;

/// Lets the kernel back guest memory with huge pages where it finds some. It does so if
/// /sys/kernel/mm/transparent_hugepage/shmem_enabled is `advise` or more; refusing does no harm.
pub(super) fn welcome(mapping: &MmapRegion<()>) {
    // SAFETY: the range is the mapping's own, and this advice does not change what it holds.
    let advised = unsafe {
        madvise(
            mapping.as_ptr().cast(),
            mapping.size(),
            Advice::LinuxHugepage,
        )
    };
    if let Err(error) = advised {
        tracing::debug!("no transparent huge pages for guest memory: {error}");
    }
}
