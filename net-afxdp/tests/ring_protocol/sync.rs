#![expect(
    unsafe_code,
    reason = "entries of a ring are shared between two threads"
)]
//! What the rings are made of, as loom has it: it tries every order of accesses that the memory model
//! allows, and finds accesses to an entry that nothing orders.

use loom::cell::UnsafeCell;
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};

/// One entry of a ring.
#[derive(Debug)]
pub(crate) struct Entry<T>(UnsafeCell<T>);

impl<T: Copy> Entry<T> {
    /// # Safety
    /// Nobody writes it meanwhile: loom checks that.
    pub(crate) unsafe fn read(&self) -> T {
        // SAFETY: contract of this function.
        self.0.with(|value| unsafe { *value })
    }

    /// # Safety
    /// Nobody reads or writes it meanwhile: loom checks that.
    pub(crate) unsafe fn write(&self, value: T) {
        // SAFETY: contract of this function.
        self.0.with_mut(|place| unsafe { *place = value });
    }

    pub(crate) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }
}
