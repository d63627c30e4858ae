//! Virtio 1.2: what every device and every transport shares.
//!
//! A transport (registers only) drives the status machine, which owns one [`VirtioDevice`] and its
//! *configured* queues. DRIVER_OK turns them into *live* queues and hands them to the device in an
//! [`Activation`]; reset stops the device, which ends its threads before it returns.

pub mod blk;
pub mod interrupt;
pub mod mmio;
pub mod net;
pub mod pci;
pub mod queue;
pub(crate) mod quiet;
mod requests;
pub mod rng;
pub mod state;
pub mod worker;

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::GuestRam;
use interrupt::Interrupt;
use queue::LiveQueue;

/// A virtio device behind any transport (virtio 1.2, section 2).
///
/// All calls come from vCPU threads through the transport, one at a time. None touches a packet or
/// a block: that is done by the threads that [`activate`](Self::activate) starts.
pub trait VirtioDevice: Send {
    /// Device ID of virtio 1.2, section 5 (1 = net, 2 = block, 4 = entropy).
    fn device_id(&self) -> u32;

    /// Feature bits of the device itself. The transport core adds VERSION_1, EVENT_IDX,
    /// INDIRECT_DESC and RING_RESET, and checks dependencies with [`Self::check_features`].
    fn features(&self) -> u64;

    /// Whether this set, already a subset of what was offered, keeps the device's own feature
    /// dependencies (virtio 1.2, e.g. section 5.1.3.1). FEATURES_OK stays clear if not.
    fn check_features(&self, features: u64) -> bool {
        let _ = features;
        true
    }

    /// Largest size of each queue, one entry a queue. Powers of two, at most 32768.
    fn queue_max_sizes(&self) -> &[u16];

    /// Reads the device configuration space. Bytes past its end stay zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the device configuration space. Read-only fields and bytes past its end are ignored.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// DRIVER_OK: start the threads that work on the live queues.
    ///
    /// # Errors
    /// A sentence for the log; the core then sets DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Status 0 was written: stop and join the threads, take back what they held.
    /// After it returns nothing touches guest memory.
    fn reset(&mut self);

    /// The transport's right to touch guest memory is taken away (on PCI by a clear Bus Master Enable): stop
    /// and join the threads, and keep all else, queues and what waits in them. After it returns nothing touches
    /// guest memory. Then come [`resume`](Self::resume), [`reset`](Self::reset) or
    /// [`reset_queue`](Self::reset_queue); a queue that is enabled meanwhile comes after `resume`.
    ///
    /// Called only between [`activate`](Self::activate), even if that failed, and `reset`.
    fn pause(&mut self);

    /// The right is back: go on where [`pause`](Self::pause) stopped. The driver is to notice nothing but the time:
    /// kicks that came meanwhile count.
    ///
    /// # Errors
    /// As [`activate`](Self::activate).
    fn resume(&mut self) -> Result<(), ActivateError>;

    /// The driver resets a queue that it had enabled (2.6.1.1): give it up. After it returns nothing touches the
    /// queue or its buffers, and the driver is told nothing of it; the other queues go on.
    ///
    /// As it is here it is right for a device with one queue.
    ///
    /// # Errors
    /// The queue is given up all the same, but others can't go on: the core then sets DEVICE_NEEDS_RESET.
    fn reset_queue(&mut self, index: u16) -> Result<(), ActivateError> {
        let _ = index;
        self.reset();
        Ok(())
    }

    /// The driver enabled a queue after DRIVER_OK, with another size and at another place than before if it
    /// likes (2.6.1.2). It is the only one in `activation`, at its place; none if the driver never said where it is.
    ///
    /// As it is here it is right for a device with one queue.
    ///
    /// # Errors
    /// As [`activate`](Self::activate).
    fn enable_queue(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.activate(activation)
    }
}

/// What a device gets at DRIVER_OK.
#[derive(Debug)]
pub struct Activation {
    /// Guest memory, for buffers.
    pub ram: GuestRam,
    /// The negotiated features.
    pub features: u64,
    /// One entry a queue, in order; `None` where the driver did not enable it.
    pub queues: Vec<Option<ActiveQueue>>,
    /// Raises configuration interrupts and DEVICE_NEEDS_RESET.
    pub interrupt: Interrupt,
}

/// A live queue together with the eventfd of its kicks.
#[derive(Debug)]
pub struct ActiveQueue {
    /// Index of the queue in the device.
    pub index: u16,
    /// The rings, for the thread that works on them.
    pub queue: LiveQueue,
    /// Written by the transport (or by KVM's ioeventfd) when the driver kicks this queue.
    pub kick: Arc<EventFd>,
}

/// Why a device could not start.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// a queue that the device can't do without was not enabled by the driver
    #[error("queue {0} is needed and was not enabled by the driver")]
    QueueMissing(u16),
    /// one of its threads ended by a fault of the host before
    #[error("one of the device's threads died before")]
    Dead,
    /// an operating system call failed
    #[error("could not {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
