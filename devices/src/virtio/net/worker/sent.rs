//! Frames that were sent from the driver's memory, on their way back to it.

use super::Worker;
use crate::virtio::net::{NetBackend, in_place};

impl<B: NetBackend> Worker<B> {
    /// Gives the driver back what was sent from its memory and has been read.
    pub(super) fn take_sent(&mut self) {
        let mut tx = self.tx.as_mut().filter(|tx| !tx.port.closed);
        if let Some(own) = self.carriers.first_mut() {
            own.take_sent(|head| {
                if let Some(tx) = &mut tx {
                    tx.work.queue.push_used(head, 0);
                }
            });
        }
    }

    /// Sees to it that nothing is read from the driver's memory any more, in a bounded time.
    pub(in crate::virtio::net) fn settle(&mut self) {
        let mut tx = self.tx.as_mut().filter(|tx| !tx.port.closed);
        let Some(own) = self.carriers.first_mut() else {
            return;
        };
        let left = in_place::settle(own, |head| {
            if let Some(tx) = &mut tx {
                tx.work.queue.push_used(head, 0);
            }
        });
        self.counters.tx_unreturned.add(left as u64);
    }
}
