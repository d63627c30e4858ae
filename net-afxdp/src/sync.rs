#![expect(unsafe_code, reason = "entries of a ring are shared with the kernel")]
//! What the rings are made of. The model of their protocol (tests/ring_protocol) puts loom's atomics and
//! cells in their place, and compiles the rings with them.

use std::cell::UnsafeCell;
pub(crate) use std::sync::atomic::{AtomicU32, Ordering, fence};

/// One entry of a ring. Laid out as what it holds.
#[repr(transparent)]
#[derive(Debug)]
pub(crate) struct Entry<T>(UnsafeCell<T>);

impl<T: Copy> Entry<T> {
    /// # Safety
    /// Nobody writes it meanwhile.
    pub(crate) unsafe fn read(&self) -> T {
        // SAFETY: contract of this function.
        unsafe { *self.0.get() }
    }

    /// # Safety
    /// Nobody reads or writes it meanwhile.
    pub(crate) unsafe fn write(&self, value: T) {
        // SAFETY: contract of this function.
        unsafe { *self.0.get() = value };
    }

    /// An entry that is not in memory of the kernel's.
    #[cfg(test)]
    pub(crate) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }
}
