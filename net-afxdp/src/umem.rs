#![expect(
    unsafe_code,
    reason = "maps the memory that is shared with the kernel and makes slices of it"
)]
//! The memory region of a queue's frames (UMEM), and the only way to their bytes.

use std::{io, ptr::NonNull, slice};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::{
    frame::{Frame, FramePool},
    shared_memory::SharedMemory,
    tx_metadata,
};

/// Bytes of a frame's chunk. One page, the largest that the kernel takes without huge pages.
pub(crate) const CHUNK_SIZE: u32 = 4096;

/// What the kernel keeps free in front of a received frame, in bytes (`XDP_PACKET_HEADROOM`).
pub(crate) const RX_HEADROOM: u32 = 256;

/// Anonymous memory of a fixed number of chunks, and behind it, at the next addresses, the
/// [`SharedMemory`] from which frames are sent in place, if there is any.
///
/// Whether the bytes of a chunk may be touched is decided by who has its [`Frame`]. The region and
/// its [`FramePool`] are made together, and stay together in one queue: frames of another pool
/// must never be used with it.
#[derive(Debug)]
pub(crate) struct Umem {
    base: NonNull<u8>,
    /// Bytes of all of it.
    length: usize,
    /// Bytes of the chunks: where the shared memory begins.
    own: usize,
    /// Bytes that are kept free at the start of a chunk to send, for TX metadata.
    tx_metadata_len: u32,
}

// SAFETY: the region is owned by this value alone; it is not tied to the thread that mapped it.
unsafe impl Send for Umem {}

impl Umem {
    /// Maps the memory for `frames` chunks, and `shared`.
    ///
    /// # Errors
    /// The system's, when it has no memory for it.
    pub(crate) fn new(frames: u32, shared: Option<&SharedMemory>) -> io::Result<(Self, FramePool)> {
        let own = frames as usize * CHUNK_SIZE as usize;
        let length = usize::try_from(Self::needed(frames, shared));
        let length = length.map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the kernel chooses the address, so no existing mapping is touched.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                // What is replaced below needs no memory.
                match shared {
                    Some(_) => MapFlags::PRIVATE | MapFlags::NORESERVE,
                    None => MapFlags::PRIVATE,
                },
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let umem = Self {
            base,
            length,
            own,
            tx_metadata_len: 0,
        };
        if let Some(shared) = shared {
            umem.map_shared(shared)?;
        }
        umem.welcome_huge_pages();
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

    /// Lets the kernel back the chunks with huge pages where it finds some, if
    /// /sys/kernel/mm/transparent_hugepage/enabled is `madvise` or more: there is less to allocate and to pin, and
    /// fewer addresses to translate. Refusing does no harm.
    fn welcome_huge_pages(&self) {
        if cfg!(miri) {
            return;
        }
        let start = self.base.as_ptr().cast();
        // SAFETY: the range is the chunks of our own mapping; this advice does not change what they hold.
        let _ = unsafe { rustix::mm::madvise(start, self.own, Advice::LinuxHugepage) };
    }

    /// Keeps [`tx_metadata::LENGTH`] bytes free before every frame that is sent. To be said before the
    /// memory is registered.
    pub(crate) fn reserve_tx_metadata(&mut self) {
        self.tx_metadata_len = tx_metadata::LENGTH;
    }

    /// Bytes that are kept free before every frame that is sent: where in its chunk such a frame begins.
    pub(crate) fn tx_metadata_len(&self) -> u32 {
        self.tx_metadata_len
    }

    /// Bytes that this takes.
    pub(crate) fn needed(frames: u32, shared: Option<&SharedMemory>) -> u64 {
        let own = u64::from(frames) * u64::from(CHUNK_SIZE);
        own.saturating_add(shared.map_or(0, SharedMemory::length))
    }

    /// Puts the files in the place of the memory behind the chunks.
    fn map_shared(&self, shared: &SharedMemory) -> io::Result<()> {
        let mut at = self.own;
        for (file, offset, length) in shared.ranges() {
            let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
            // SAFETY: the ranges lie behind each other, and `length` is the sum of all.
            let place = unsafe { self.base.add(at) };
            // SAFETY: replaces a part of our own mapping that nobody has seen yet.
            unsafe {
                rustix::mm::mmap(
                    place.as_ptr().cast(),
                    length,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE,
                    file,
                    offset,
                )
            }?;
            at += length;
        }
        Ok(())
    }

    /// Where `length` bytes at `offset` of the shared memory are in the region. `None`: not in it.
    pub(crate) fn shared_address(&self, offset: u64, length: u32) -> Option<u64> {
        let start = offset.checked_add(self.own as u64)?;
        let end = start.checked_add(u64::from(length))?;
        (end <= self.length as u64).then_some(start)
    }

    /// Whether there is shared memory.
    pub(crate) fn has_shared(&self) -> bool {
        self.length > self.own
    }

    /// Bytes of shared memory.
    pub(crate) fn shared_length(&self) -> u64 {
        (self.length - self.own) as u64
    }

    /// Whether this is the address of shared memory.
    pub(crate) fn is_shared(&self, address: u64) -> bool {
        address >= self.own as u64
    }

    /// Copies `length` bytes at an address of shared memory to the start of the frame's chunk. False,
    /// and nothing is done: it is no such memory, or more than a chunk. For the few frames that can't
    /// stay where they are; others may be writing there meanwhile.
    pub(crate) fn copy_shared(&mut self, address: u64, length: u32, frame: &mut Frame) -> bool {
        let Some(end) = address.checked_add(u64::from(length)) else {
            return false;
        };
        if !self.is_shared(address) || end > self.length as u64 {
            return false;
        }
        let Ok(start) = usize::try_from(address) else {
            return false;
        };
        let from = self.base;
        let Some(bytes) = self.bytes_mut(frame, length as usize) else {
            return false;
        };
        for (at, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: within the region, as was checked above; and `bytes` is within the chunks.
            let place = unsafe { from.add(start + at) };
            // SAFETY: mapped as long as self. Others may write there, in this process or in another:
            // a volatile load of a byte has some value of it.
            *byte = unsafe { place.as_ptr().read_volatile() };
        }
        true
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

    /// The `length` bytes of a frame to send, to be written: its chunk's, behind what is kept free for
    /// metadata. `None`: beyond the chunk.
    ///
    /// They hold whatever was there before.
    pub(crate) fn bytes_mut<'f>(
        &'f mut self,
        frame: &'f mut Frame,
        length: usize,
    ) -> Option<&'f mut [u8]> {
        self.range_mut(frame, self.tx_metadata_len as usize, length)
    }

    /// The bytes that are kept free for metadata before a frame to send; none if none are.
    pub(crate) fn tx_metadata_mut<'f>(
        &'f mut self,
        frame: &'f mut Frame,
    ) -> Option<&'f mut [u8; tx_metadata::LENGTH as usize]> {
        let length = self.tx_metadata_len as usize;
        self.range_mut(frame, 0, length)?.as_mut_array()
    }

    fn range_mut<'f>(
        &'f mut self,
        frame: &'f mut Frame,
        offset: usize,
        length: usize,
    ) -> Option<&'f mut [u8]> {
        let start = self.locate(frame, offset, length)?;
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
        if start.checked_add(length)? > self.own {
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
        let (mut umem, mut pool) = Umem::new(4, None).unwrap();
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
    #[cfg_attr(miri, ignore = "there are no memfds")]
    fn shared_memory_lies_behind_the_chunks() {
        use crate::shared_memory::{FileRange, SharedMemory};
        let file = || {
            let file = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&file, 12288).unwrap();
            file
        };
        let (one, two) = (file(), file());
        rustix::io::pwrite(&one, b"one", 4096).unwrap();
        rustix::io::pwrite(&two, b"two", 4094).unwrap();
        let range = |file, offset, length| FileRange {
            file,
            offset,
            length,
        };
        let shared = SharedMemory::new(vec![range(one, 4096, 8192), range(two, 0, 8192)]).unwrap();
        let (mut umem, mut pool) = Umem::new(2, Some(&shared)).unwrap();
        drop(shared);
        assert_eq!(umem.length(), 8192 + 16384);
        let mut frame = pool.take().unwrap();
        for (offset, bytes) in [(0, b"one"), (8192 + 4094, b"two")] {
            let address = umem.shared_address(offset, 3).unwrap();
            assert_eq!(address, offset + 8192);
            assert!(umem.copy_shared(address, 3, &mut frame));
            assert_eq!(umem.bytes(&frame, 0, 3).unwrap(), bytes);
        }
        assert_eq!(umem.shared_address(16384, 0), Some(24576));
        for (offset, length) in [(16383, 2), (16384, 1), (u64::MAX, 1), (u64::MAX - 8192, 1)] {
            assert_eq!(umem.shared_address(offset, length), None, "{offset:#x}");
        }
        for (address, length) in [(0, 1), (8191, 1), (24575, 2), (u64::MAX, 2), (8192, 4097)] {
            assert!(
                !umem.copy_shared(address, length, &mut frame),
                "{address:#x}"
            );
        }
        pool.put(frame);
    }

    #[test]
    fn nothing_beyond_a_chunk_is_reachable() {
        let (mut umem, mut pool) = Umem::new(2, None).unwrap();
        let mut frame = pool.take().unwrap();
        assert!(umem.bytes(&frame, 0, 4097).is_none());
        assert!(umem.bytes(&frame, 256, 3841).is_none());
        assert!(umem.bytes(&frame, 4096, 1).is_none());
        assert!(umem.bytes(&frame, 4096, 0).is_some());
        assert!(umem.bytes(&frame, usize::MAX, 2).is_none());
        assert!(umem.bytes_mut(&mut frame, 4097).is_none());
        assert!(umem.tx_metadata_mut(&mut frame).is_none());
        pool.put(frame);
    }

    #[test]
    fn metadata_lies_before_a_frame_to_send() {
        let (mut umem, mut pool) = Umem::new(2, None).unwrap();
        umem.reserve_tx_metadata();
        let mut frame = pool.take().unwrap();
        umem.bytes_mut(&mut frame, 4064).unwrap().fill(2);
        umem.tx_metadata_mut(&mut frame).unwrap().fill(1);
        let bytes = umem.bytes(&frame, 0, 4096).unwrap();
        let (metadata, rest) = bytes.split_at(32);
        assert!(metadata.iter().all(|&byte| byte == 1));
        assert!(rest.iter().all(|&byte| byte == 2));
        assert!(umem.bytes_mut(&mut frame, 4065).is_none());
        pool.put(frame);
    }

    #[test]
    #[cfg_attr(miri, ignore = "there are no memfds")]
    fn the_last_bytes_of_shared_memory_are_copied_too() {
        use crate::shared_memory::{FileRange, SharedMemory};
        let file = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 4096).unwrap();
        rustix::io::pwrite(&file, b"end", 4093).unwrap();
        let range = FileRange {
            file,
            offset: 0,
            length: 4096,
        };
        let shared = SharedMemory::new(vec![range]).unwrap();
        let (mut umem, mut pool) = Umem::new(2, Some(&shared)).unwrap();
        let mut frame = pool.take().unwrap();
        let end = umem.length() as u64;
        assert!(umem.copy_shared(end - 3, 3, &mut frame));
        assert_eq!(umem.bytes(&frame, 0, 3).unwrap(), b"end");
        assert!(umem.copy_shared(end - 4096, 4096, &mut frame), "all of it");
        assert_eq!(umem.bytes(&frame, 4093, 3).unwrap(), b"end");
        assert!(!umem.copy_shared(end - 3, 4, &mut frame));
        pool.put(frame);
    }
}
