//! Configured queues come alive: all of them at DRIVER_OK, and one at a time after it was reset
//! (VIRTIO_F_RING_RESET; virtio 1.2, section 2.6.1).

use std::{fmt, sync::Arc};

use super::{FEATURES_OK, VirtioCore, unconfigured};
use crate::virtio::{
    ActivateError, Activation, ActiveQueue,
    queue::{LiveQueue, QueueFault, RING_RESET},
};

/// Why queues did not come alive.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The driver put one where it can't be.
    #[error("queue {index}: {fault}")]
    Queue { index: u16, fault: QueueFault },
    /// The device can't work on them.
    #[error(transparent)]
    Device(#[from] ActivateError),
}

impl VirtioCore {
    /// DRIVER_OK: the device gets all queues that the driver has enabled.
    pub(super) fn activate(&mut self) {
        if let Err(reason) = self.try_to_activate() {
            self.refuse("did not start", &reason);
        }
    }

    fn try_to_activate(&mut self) -> Result<(), Refusal> {
        let activation = self.activation(|_| true)?;
        self.active = true;
        Ok(self.device.activate(activation)?)
    }

    /// The driver has enabled queue `index` again, or only now, and the device gets it.
    pub(super) fn enable_queue(&mut self, index: u32) {
        // A driver whose device did not even start was told so.
        if self.active
            && let Err(reason) = self.try_to_enable(index)
        {
            self.refuse("can't use a queue that was enabled later", &reason);
        }
    }

    fn try_to_enable(&mut self, index: u32) -> Result<(), Refusal> {
        let activation = self.activation(|queue| u32::from(queue) == index)?;
        Ok(self.device.enable_queue(activation)?)
    }

    /// The driver resets queue `index`. When this returns true, nothing touches the queue any more, it tells the
    /// driver nothing, and its registers are as after a reset of the device; the driver may configure and enable it
    /// again. False, and nothing happens: there is no such queue, or VIRTIO_F_RING_RESET was not negotiated.
    pub fn reset_queue(&mut self, index: u32) -> bool {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let (Some(queue), Some(kick)) = (self.queues.get_mut(place), self.kicks.get(place)) else {
            return false;
        };
        if self.status & FEATURES_OK == 0 || self.driver_features & RING_RESET == 0 {
            return false;
        }
        let was_ready = queue.ready;
        *queue = unconfigured(queue.max_size);
        let device_has_it = self.active && was_ready && !self.late.forget(index);
        let given_up = match u16::try_from(index) {
            Ok(index) if device_has_it => self.device.reset_queue(index),
            _ => Ok(()),
        };
        // Kicks of the time before mean nothing afterwards; an error is "there were none".
        let _ = kick.read();
        if let Err(reason) = given_up {
            self.refuse("can't go on after the reset of a queue", &reason);
        }
        true
    }

    /// What the device gets, with those of the queues that are `wanted` and enabled.
    fn activation(&self, wanted: impl Fn(u16) -> bool) -> Result<Activation, Refusal> {
        let mut queues = Vec::with_capacity(self.queues.len());
        for ((index, state), kick) in (0..).zip(&self.queues).zip(&self.kicks) {
            // Enabled without ever having been told where its parts are: as if not enabled.
            let parts = [state.desc_table, state.avail_ring, state.used_ring];
            if !wanted(index) || !state.ready || parts.contains(&0) {
                queues.push(None);
                continue;
            }
            let queue = LiveQueue::new(state, &self.ram, self.driver_features)
                .map_err(|fault| Refusal::Queue { index, fault })?;
            let kick = Arc::clone(kick);
            queues.push(Some(ActiveQueue { index, queue, kick }));
        }
        Ok(Activation {
            ram: self.ram.clone(),
            features: self.driver_features,
            queues,
            interrupt: self.interrupt.clone(),
        })
    }

    pub(super) fn refuse(&self, what: &str, reason: &dyn fmt::Display) {
        if let Some(number) = self.refusals.count() {
            let id = self.device.device_id();
            tracing::warn!("virtio device {id} {what} (time {number}): {reason}");
        }
        self.interrupt.needs_reset();
    }
}
