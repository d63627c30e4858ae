#![expect(
    unsafe_code,
    reason = "memory that the device reads and writes while we do"
)]
//! Memory that is shared with devices: taken once, never given back, reached by atomics only.

use core::{
    cell::UnsafeCell,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// All that there is, in bytes.
const SIZE: usize = 24 << 20;

#[repr(C, align(4096))]
struct Arena(UnsafeCell<[u8; SIZE]>);

// SAFETY: each byte is handed out once.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; SIZE]));
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A range of memory that a device may be told of. A copy is the same memory.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
}

impl Region {
    /// Takes `len` bytes, zeroed, at a page boundary.
    ///
    /// # Panics
    /// There are not so many.
    #[must_use]
    pub fn take(len: usize) -> Self {
        let start = NEXT.fetch_add(len.next_multiple_of(4096), Ordering::Relaxed);
        assert!(start + len <= SIZE, "no memory left for {len} bytes");
        let base = ARENA.0.get().cast::<u8>().wrapping_add(start);
        let Some(base) = NonNull::new(base) else {
            unreachable!("a static is not at 0")
        };
        Self { base, len }
    }

    /// Its physical address: memory is mapped one to one.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// The byte at `offset`. Like all of these it panics beyond the range or unaligned.
    #[must_use]
    pub fn u8(&self, offset: usize) -> &AtomicU8 {
        self.cell(offset)
    }

    /// The 16 bits at `offset`, in the CPU's order, which is also virtio's.
    #[must_use]
    pub fn u16(&self, offset: usize) -> &AtomicU16 {
        self.cell(offset)
    }

    /// The 32 bits at `offset`.
    #[must_use]
    pub fn u32(&self, offset: usize) -> &AtomicU32 {
        self.cell(offset)
    }

    /// The 64 bits at `offset`.
    #[must_use]
    pub fn u64(&self, offset: usize) -> &AtomicU64 {
        self.cell(offset)
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.len
    }

    /// Sets `len` bytes from `offset` on: for set-up, not for the data path.
    pub fn fill(&self, offset: usize, len: usize, value: u8) {
        for i in offset..offset + len {
            self.u8(i).store(value, Ordering::Relaxed);
        }
    }

    /// Writes bytes one by one: for set-up, not for the data path.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        for (i, &byte) in bytes.iter().enumerate() {
            self.u8(offset + i).store(byte, Ordering::Relaxed);
        }
    }

    /// `T` is one of the atomic integers: every bit pattern is one.
    fn cell<T>(&self, offset: usize) -> &T {
        let inside = offset
            .checked_add(size_of::<T>())
            .is_some_and(|end| end <= self.len);
        assert!(inside && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside, as was just checked.
        let cell = unsafe { self.base.add(offset) }.cast::<T>();
        // SAFETY: inside and aligned (the base is at a page), initialized, and reached by atomics only.
        unsafe { cell.as_ref() }
    }
}
