#![expect(
    unsafe_code,
    reason = "maps the rings of a packet socket and reads what the kernel writes there"
)]
//! The memory of a packet socket's rings. All offsets are checked.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

/// The mapping; unmapped when dropped.
#[derive(Debug)]
pub(super) struct RingMemory {
    base: NonNull<u8>,
    length: usize,
}

impl RingMemory {
    /// Maps the first `length` bytes of the socket: the receive ring, then the send ring.
    pub(super) fn map(socket: impl AsFd, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping, where the kernel wants it.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, length })
    }

    /// The address of `size` bytes at `offset`, if they are inside.
    fn at(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        if offset.checked_add(size)? > self.length {
            return None;
        }
        // SAFETY: inside of the mapping, as just checked.
        Some(unsafe { self.base.add(offset) })
    }

    /// The status word at `offset`, which both sides write.
    fn word(&self, offset: usize) -> Option<&AtomicU32> {
        let address = self.at(offset, 4)?.cast::<AtomicU32>();
        if !address.is_aligned() {
            return None;
        }
        // SAFETY: aligned, inside of the mapping, which lives as long as `self`; nobody makes a plain reference to a word
        // that is read by this function.
        Some(unsafe { address.as_ref() })
    }

    /// Who owns a slot, with all that the other side wrote before. 0 outside.
    pub(super) fn status(&self, offset: usize) -> u32 {
        self.word(offset).map_or(0, |it| it.load(Ordering::Acquire))
    }

    /// Hands a slot over, with all that was written before.
    pub(super) fn set_status(&self, offset: usize, status: u32) {
        if let Some(word) = self.word(offset) {
            word.store(status, Ordering::Release);
        }
    }

    /// A field of a slot that is ours. 0 outside.
    pub(super) fn field(&self, offset: usize) -> u32 {
        self.word(offset).map_or(0, |it| it.load(Ordering::Relaxed))
    }

    /// Sets a field of a slot that is ours.
    pub(super) fn set_field(&self, offset: usize, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The bytes of a frame in a slot that is ours. Empty if not all of them are inside.
    pub(super) fn bytes(&self, offset: usize, length: usize) -> &[u8] {
        let Some(address) = self.at(offset, length) else {
            return &[];
        };
        // SAFETY: inside of the mapping; the kernel does not write a slot that it has handed to us, and `&self` keeps
        // `bytes_mut` away.
        unsafe { std::slice::from_raw_parts(address.as_ptr(), length) }
    }

    /// The same, to write.
    pub(super) fn bytes_mut(&mut self, offset: usize, length: usize) -> &mut [u8] {
        let Some(address) = self.at(offset, length) else {
            return &mut [];
        };
        // SAFETY: inside of the mapping; the kernel does not touch a slot that is ours, and `&mut self` keeps all others
        // away.
        unsafe { std::slice::from_raw_parts_mut(address.as_ptr(), length) }
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        // SAFETY: this mapping, once; nothing borrows from it any more.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.length);
        }
    }
}
