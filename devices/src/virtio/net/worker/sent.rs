//! Frames that were sent from the driver's memory, on their way back to it.

use super::Worker;
use crate::virtio::net::{NetBackend, carrier::Carrier, in_place};

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
        let left = self.with_own(|own, done| in_place::settle(own, done));
        self.counters.tx_unreturned.add(left.unwrap_or(0) as u64);
    }

    /// The same for queues that go on later. The driver sees then what it has back.
    pub(in crate::virtio::net) fn rest(&mut self) {
        self.with_own(|own, done| in_place::take_back(own, done));
    }

    /// Does `work` to the pair's own back end, and gives the driver back what that says is done.
    fn with_own<T>(
        &mut self,
        work: impl FnOnce(&mut Carrier<B>, &mut dyn FnMut(u16)) -> T,
    ) -> Option<T> {
        let mut tx = self.tx.as_mut().filter(|tx| !tx.port.closed);
        let own = self.carriers.first_mut()?;
        let mut done = |head| {
            if let Some(tx) = &mut tx {
                tx.work.queue.push_used(head, 0);
            }
        };
        Some(work(own, &mut done))
    }
}
