#![expect(
    unsafe_code,
    reason = "tests the rings over memory of this process, with the kernel played by the other side"
)]
//! Rings over plain memory, both of whose sides are here.

use std::{
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU32},
};

use crate::{
    ring::{Consumer, Layout, Producer},
    sync::Entry,
};

/// Memory of a ring, as the kernel would share it.
#[derive(Debug)]
pub(crate) struct Memory<T> {
    pub(crate) producer: AtomicU32,
    pub(crate) consumer: AtomicU32,
    pub(crate) flags: AtomicU32,
    entries: Box<[Entry<T>]>,
}

// SAFETY: used through the two sides of a ring alone, which is what is tested.
unsafe impl<T: Send> Sync for Memory<T> {}

impl<T: Copy + Default> Memory<T> {
    /// A ring whose indices start at `start`.
    pub(crate) fn new(size: u32, start: u32) -> Arc<Self> {
        Arc::new(Self {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            entries: (0..size).map(|_| Entry::new(T::default())).collect(),
        })
    }

    fn layout(&self) -> Layout<T> {
        Layout {
            producer: NonNull::from(&self.producer),
            consumer: NonNull::from(&self.consumer),
            flags: NonNull::from(&self.flags),
            entries: NonNull::from(&*self.entries).cast(),
            size: u32::try_from(self.entries.len()).unwrap(),
        }
    }

    /// Both sides. The memory must be kept for as long as they are.
    pub(crate) fn sides(&self) -> (Producer<T>, Consumer<T>) {
        // SAFETY: the tests keep the memory; this is the only producer.
        let producer = unsafe { Producer::new(self.layout()) };
        // SAFETY: the tests keep the memory; this is the only consumer.
        let consumer = unsafe { Consumer::new(self.layout()) };
        (producer, consumer)
    }
}
