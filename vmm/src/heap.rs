//! The C library's allocator, in this program alone: who embeds the crate decides for themselves.

#![expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]

/// Has all threads allocate from one heap. Otherwise glibc gives each its own, and each grows to the most that it ever
/// held: a guest that resizes its rings has ringwire hold more than twice as much (docs/figures.md). Nothing
/// is allocated for a frame, so threads have no use for heaps of their own.
pub(crate) fn use_one() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread is there yet, so nothing is being allocated. If it is refused, memory is all that it costs.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
