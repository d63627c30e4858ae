//! The queues that a worker has: the driver enables them, and may reset one while the other goes on
//! (virtio 1.2, section 2.6.1). Done while no thread has the worker.

use std::sync::Arc;

use super::{
    NetBackend, Side, Worker,
    notify::{Live, Port},
};
use crate::virtio::{
    ActiveQueue,
    net::{coalesce::Moderator, counters::State, filter::FilterReader, rx::Rx, tx::Tx},
};

impl<B: NetBackend> Worker<B> {
    /// Takes a queue that the driver has enabled, in place of the one before if there was any.
    pub(in crate::virtio::net) fn attach(&mut self, side: Side, queue: ActiveQueue) {
        let ActiveQueue { index, queue, kick } = queue;
        let coalescing = self.shared.coalescing.get(usize::from(index));
        let port = Port {
            index,
            kick,
            closed: false,
            moderator: Moderator::new(coalescing.map(Arc::clone).unwrap_or_default()),
        };
        let counters = Arc::clone(&self.counters);
        match side {
            Side::Rx => {
                let work = Rx::new(
                    queue,
                    self.features,
                    counters,
                    Arc::clone(&self.shared.guest_offloads),
                    FilterReader::new(Arc::clone(&self.shared.filter)),
                    Arc::clone(&self.shared.wire_mtu),
                );
                self.rx = Some(Live { work, port });
            }
            Side::Tx => {
                let work = Tx::new(queue, self.features, counters);
                self.tx = Some(Live { work, port });
            }
        }
    }

    /// Gives a queue up that the driver resets. Frames that were copied from it go out still; of those that are
    /// sent from the driver's memory it waits for the end, a bounded time. What the wire has for the receive queue
    /// stays there.
    pub(in crate::virtio::net) fn detach(&mut self, side: Side) {
        match side {
            Side::Rx => {
                self.rx = None;
                (self.starved, self.rx_limited) = (State::default(), State::default());
            }
            Side::Tx => {
                self.settle();
                self.tx = None;
                (self.blocked, self.tx_limited) = (State::default(), State::default());
            }
        }
    }

    /// How a queue reaches the driver, if it is enabled.
    pub(super) fn port(&mut self, side: Side) -> Option<&mut Port> {
        match side {
            Side::Rx => self.rx.as_mut().map(|rx| &mut rx.port),
            Side::Tx => self.tx.as_mut().map(|tx| &mut tx.port),
        }
    }
}
