#![expect(unsafe_code, reason = "a hint to the CPU about an address")]
//! Fetching guest memory into the cache before it is needed.

use vm_memory::VolatileSlice;

/// Has the CPU fetch the first cache line of `slice`: the guest's CPU wrote it, and it will be used soon.
pub(super) fn prefetch(slice: &VolatileSlice<'_>) {
    let guard = slice.ptr_guard();
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint: it has no effect but on the cache.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(guard.as_ptr().cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = guard;
}
