//! Which vector tells what, and the ISR status for drivers without vectors (virtio 1.2, 4.1.4.5 and
//! 4.1.5.1.2).

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU16, Ordering},
};

use super::super::{interrupt::InterruptSink, state::DeviceFlags};
use crate::pci::Vectors;

/// VIRTIO_MSI_NO_VECTOR: no interrupt for this event.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// ISR status: a used ring was updated.
const QUEUE: u8 = 1;
/// ISR status: the configuration, or DEVICE_NEEDS_RESET, changed.
const CONFIG: u8 = 2;

/// Shared by the registers and the device's threads.
#[derive(Debug)]
pub(super) struct Signals {
    flags: Arc<DeviceFlags>,
    vectors: Arc<Vectors>,
    isr: AtomicU8,
    config: AtomicU16,
    queues: Box<[AtomicU16]>,
}

impl Signals {
    pub(super) fn new(flags: Arc<DeviceFlags>, vectors: Arc<Vectors>, queues: usize) -> Self {
        let unset = || AtomicU16::new(NO_VECTOR);
        Self {
            flags,
            vectors,
            isr: AtomicU8::new(0),
            config: unset(),
            queues: std::iter::repeat_with(unset).take(queues).collect(),
        }
    }

    /// Reads the ISR status, which clears it.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::SeqCst)
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config.load(Ordering::SeqCst)
    }

    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config.store(self.checked(vector), Ordering::SeqCst);
    }

    /// The vector of a queue; none if there is no such queue.
    pub(super) fn queue_vector(&self, queue: u16) -> u16 {
        let slot = self.queues.get(usize::from(queue));
        slot.map_or(NO_VECTOR, |vector| vector.load(Ordering::SeqCst))
    }

    pub(super) fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(slot) = self.queues.get(usize::from(queue)) {
            slot.store(self.checked(vector), Ordering::SeqCst);
        }
    }

    /// 4.1.5.1.2.1: a vector that does not exist reads back as none.
    fn checked(&self, vector: u16) -> u16 {
        let exists = vector < self.vectors.count();
        if exists { vector } else { NO_VECTOR }
    }

    /// Device reset (4.1.4.3.1).
    pub(super) fn reset(&self) {
        self.isr.store(0, Ordering::SeqCst);
        for vector in self.queues.iter().chain([&self.config]) {
            vector.store(NO_VECTOR, Ordering::SeqCst);
        }
    }

    fn tell_config(&self) {
        // 4.1.4.5.1: with MSI-X too.
        self.isr.fetch_or(CONFIG, Ordering::SeqCst);
        self.vectors.raise(self.config_vector());
    }
}

impl InterruptSink for Signals {
    fn queue(&self, index: u16) {
        if self.vectors.enabled() {
            self.vectors.raise(self.queue_vector(index));
        } else {
            self.isr.fetch_or(QUEUE, Ordering::SeqCst);
        }
    }

    fn config(&self) {
        self.flags.config_changed();
        self.tell_config();
    }

    fn needs_reset(&self) {
        self.flags.set_needs_reset();
        self.tell_config();
    }
}
