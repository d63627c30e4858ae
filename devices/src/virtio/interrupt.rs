//! How a device reaches its driver: queue and configuration interrupts, and DEVICE_NEEDS_RESET.

use std::{fmt, sync::Arc};

/// The transport's side: MMIO has one line for all, PCI a vector each.
pub trait InterruptSink: Send + Sync {
    /// A used buffer notification for queue `index` (virtio 1.2, 2.3).
    fn queue(&self, index: u16);
    /// A configuration change notification; the transport also counts the config generation.
    fn config(&self);
    /// Sets DEVICE_NEEDS_RESET and sends a configuration change notification (2.1.2).
    fn needs_reset(&self);
}

/// A handle on the transport's [`InterruptSink`], cheap to clone and to hand to threads.
#[derive(Clone)]
pub struct Interrupt(Arc<dyn InterruptSink>);

impl Interrupt {
    /// Wraps a transport's sink.
    pub fn new(sink: Arc<dyn InterruptSink>) -> Self {
        Self(sink)
    }

    /// Tells the driver that queue `index` has used buffers. The decision whether it wants to
    /// know was made before (`LiveQueue`).
    pub fn queue(&self, index: u16) {
        self.0.queue(index);
    }

    /// Tells the driver that the device's configuration changed.
    pub fn config(&self) {
        self.0.config();
    }

    /// Tells the driver that the device is broken until it is reset.
    pub fn needs_reset(&self) {
        self.0.needs_reset();
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupt")
    }
}
