#![expect(
    unsafe_code,
    reason = "maps the memory that is shared with the kernel and makes slices of it"
)]
//! The memory region of a queue's frames (UMEM), and the only way to their bytes.

use std::{io, ptr::NonNull, slice};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::frame::{Frame, FramePool};

/// Bytes of a frame's chunk. One page, the largest that the kernel takes without huge pages.
pub(crate) const CHUNK_SIZE: u32 = 4096;

/// What the kernel keeps free in front of a received frame, in bytes (`XDP_PACKET_HEADROOM`).
pub(crate) const RX_HEADROOM: u32 = 256;

/// Anonymous memory of a fixed number of chunks.
///
/// Whether the bytes of a chunk may be touched is decided by who has its [`Frame`]. The region and
/// its [`FramePool`] are made together, and stay together in one queue: frames of another pool
/// must never be used with it.
#[derive(Debug)]
pub(crate) struct Umem {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the region is owned by this value alone; it is not tied to the thread that mapped it.
unsafe impl Send for Umem {}

impl Umem {
    /// Maps the memory for `frames` chunks.
    ///
    /// # Errors
    /// The system's, when it has no memory for it.
    pub(crate) fn new(frames: u32) -> io::Result<(Self, FramePool)> {
        let length = frames as usize * CHUNK_SIZE as usize;
        // SAFETY: the kernel chooses the address, so no existing mapping is touched.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let umem = Self { base, length };
        // The kernel pins these pages. After a fork, the first write of either process moves it to
        // a copy, and the kernel would go on with the other one: so don't give them to children.
        // Miri has no such call, and no forks.
        if !cfg!(miri) {
            // SAFETY: the range is the mapping made above; a child does not run code that uses it
            // before exec.
            unsafe {
                rustix::mm::madvise(umem.base.as_ptr().cast(), length, Advice::LinuxDontFork)
            }?;
        }
        Ok((umem, FramePool::new(frames)))
    }

    /// Where the region starts; for the registration with the kernel.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes of the region.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// `length` bytes of the frame, `offset` bytes into its chunk. `None`: beyond the chunk.
    pub(crate) fn bytes<'f>(
        &'f self,
        frame: &'f Frame,
        offset: usize,
        length: usize,
    ) -> Option<&'f [u8]> {
        let start = self.locate(frame, offset, length)?;
        // SAFETY: `locate` checked that the range is inside one chunk of the mapping. The memory is
        // initialized (zeroed by the kernel). `frame` is the only right to this chunk, so nobody
        // writes while the slice lives: not the kernel, which it is not lent to, and nobody in the
        // process, as that takes `&mut Frame`.
        Some(unsafe { slice::from_raw_parts(start.as_ptr(), length) })
    }

    /// The first `length` bytes of the frame's chunk, to be written. `None`: beyond the chunk.
    ///
    /// They hold whatever was there before.
    pub(crate) fn bytes_mut<'f>(
        &'f mut self,
        frame: &'f mut Frame,
        length: usize,
    ) -> Option<&'f mut [u8]> {
        let start = self.locate(frame, 0, length)?;
        // SAFETY: as in `bytes`; `frame` is borrowed mutably, so this is the only slice of it.
        Some(unsafe { slice::from_raw_parts_mut(start.as_ptr(), length) })
    }

    /// Has the CPU fetch the cache line at `address` of the region: somebody will read it soon. An address
    /// outside it, which only a broken kernel could give, does nothing.
    pub(crate) fn prefetch(&self, address: u64) {
        let Some(offset) = usize::try_from(address).ok().filter(|&it| it < self.length) else {
            return;
        };
        // SAFETY: inside the mapping, as was just checked.
        let line = unsafe { self.base.add(offset) };
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint: it has no effect but on the cache, whoever has the frame.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = line;
    }

    fn locate(&self, frame: &Frame, offset: usize, length: usize) -> Option<NonNull<u8>> {
        if offset.checked_add(length)? > CHUNK_SIZE as usize {
            return None;
        }
        let start = usize::try_from(frame.address()).ok()?.checked_add(offset)?;
        if start.checked_add(length)? > self.length {
            return None;
        }
        // SAFETY: start is within the mapping, as was just checked.
        Some(unsafe { self.base.add(start) })
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `new`; the slices of it borrow from self. The kernel has its
        // own hold on the pages, so a socket that is still open does no harm.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
        // Where the kernel has joined it with a neighbour, to take it out makes one mapping more.
        if let Err(error) = result {
            tracing::warn!(
                length = self.length,
                "memory of frames stays mapped until the process ends: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_do_not_overlap() {
        let (mut umem, mut pool) = Umem::new(4).unwrap();
        let mut first = pool.take().unwrap();
        let mut second = pool.take().unwrap();
        umem.bytes_mut(&mut first, 4096).unwrap().fill(1);
        umem.bytes_mut(&mut second, 4096).unwrap().fill(2);
        assert!(
            umem.bytes(&first, 0, 4096)
                .unwrap()
                .iter()
                .all(|&byte| byte == 1)
        );
        assert!(
            umem.bytes(&second, 256, 3840)
                .unwrap()
                .iter()
                .all(|&byte| byte == 2)
        );
        pool.put(first);
        pool.put(second);
    }

    #[test]
    fn nothing_beyond_a_chunk_is_reachable() {
        let (mut umem, mut pool) = Umem::new(2).unwrap();
        let mut frame = pool.take().unwrap();
        assert!(umem.bytes(&frame, 0, 4097).is_none());
        assert!(umem.bytes(&frame, 256, 3841).is_none());
        assert!(umem.bytes(&frame, 4096, 1).is_none());
        assert!(umem.bytes(&frame, 4096, 0).is_some());
        assert!(umem.bytes(&frame, usize::MAX, 2).is_none());
        assert!(umem.bytes_mut(&mut frame, 4097).is_none());
        pool.put(frame);
    }
}
