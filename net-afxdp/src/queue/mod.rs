//! One queue of an interface: bursts of frames in and out.

mod in_place;
#[cfg(test)]
mod in_place_tests;
#[cfg(test)]
mod late_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod random_tests;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    thread,
};

pub use send::SendError;

use crate::{
    counters::{Counters, FrameAccounting, Statistics},
    frame::{FramePool, Side},
    handle::Handle,
    in_flight::InFlight,
    multi_buffer::FrameLimits,
    socket::{Kernel, Socket},
};

/// One queue of an interface, with its socket, its rings and its frames.
///
/// Owned by one thread at a time; no locks. Dropping it closes the socket: the kernel releases the
/// queue some 50 ms later.
///
/// Half of the frames circulate through the fill and rx rings, the other half through the tx and
/// completion rings, and each ring holds all frames that can be in it: neither direction starves the
/// other, and no ring overflows. The fill ring holds twice as many, since the kernel tells late what
/// it has taken from it: a frame can be on its way back there before its old entry counts as free.
#[derive(Debug)]
pub struct Queue {
    id: u32,
    path: Path<Handle>,
}

/// What a queue is made of, on a kernel or on a model of it.
#[derive(Debug)]
struct Path<K> {
    socket: Socket<K>,
    pool: FramePool,
    /// What is sent from elsewhere than from the pool's frames.
    in_flight: InFlight,
    limits: FrameLimits,
    /// What comes next in the rx ring is the rest of a frame that is too long.
    dropping: bool,
    /// Looking for frames polls the card.
    busy_poll: bool,
    counters: Counters,
}

impl<K: Kernel> Path<K> {
    /// Arms the receive side.
    fn new(socket: Socket<K>, pool: FramePool, limits: FrameLimits) -> Self {
        let in_place = socket.umem.has_shared();
        let mut path = Self {
            in_flight: InFlight::new(if in_place { socket.rings.tx.size() } else { 0 }),
            socket,
            pool,
            limits,
            dropping: false,
            busy_poll: false,
            counters: Counters::default(),
        };
        path.arm();
        path.wake_rx();
        path
    }

    /// Where the frames are now.
    fn accounting(&self) -> FrameAccounting {
        let socket = &self.socket;
        let receive = self.pool.lent(Side::Receive);
        let in_place = self.in_flight.lent();
        let transmit = self.pool.lent(Side::Transmit) + in_place;
        // What the kernel has handed back is known exactly. What it has taken it may tell late, so
        // that frames it has handed back seem to be in the other ring as well: hence the limits.
        let rx = socket.rings.rx.available();
        let fill = socket.rings.fill.pending() + socket.rings.fill.staged();
        let fill = fill.min(receive.saturating_sub(rx));
        let completion = socket.rings.completion.available();
        let tx = socket.rings.tx.pending() + socket.rings.tx.staged();
        let tx = tx.min(transmit.saturating_sub(completion));
        FrameAccounting {
            total: self.pool.total(),
            free: self.pool.free(),
            fill,
            receiving: receive.saturating_sub(rx + fill),
            rx,
            tx,
            transmitting: transmit.saturating_sub(tx + completion),
            completion,
            in_place,
        }
    }
}

impl Queue {
    /// Takes over a bound socket and arms its receive side.
    pub(crate) fn new(id: u32, socket: Socket, pool: FramePool, limits: FrameLimits) -> Self {
        Self {
            id,
            path: Path::new(socket, pool, limits),
        }
    }

    /// Number of the queue on its interface.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Longest frame that [`send`](Self::send) takes, in bytes: Ethernet header included, FCS not.
    ///
    /// One chunk (4096, or 32 less with [TX metadata](crate::TxMetadata)), or as many as frames of the MTU need that the interface had when it was
    /// opened.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        self.path.limits.sent() as usize
    }

    /// Longest frame that can be received, in bytes: the kernel keeps the start of a chunk for
    /// itself. Longer ones are dropped, and counted in [`Statistics::rx_dropped`] or, with frames of
    /// several chunks, in [`Counters::rx_too_long`].
    #[must_use]
    pub fn max_received_frame(&self) -> usize {
        self.path.limits.received() as usize
    }

    /// Whether frames may have several chunks (`XDP_USE_SG`).
    #[must_use]
    pub fn multi_buffer(&self) -> bool {
        self.path.limits.are_several_chunks()
    }

    /// Largest MTU in bytes whose frames can be sent and received, with a VLAN tag.
    #[must_use]
    pub fn max_mtu(&self) -> u32 {
        self.path.limits.mtu()
    }

    /// Whether the driver reads and writes the frames in place, without a copy in the kernel.
    #[must_use]
    pub fn zero_copy(&self) -> bool {
        self.path.socket.zero_copy
    }

    /// Whether checksums can be left to the card, or to the kernel
    /// ([`send_with_checksum`](Self::send_with_checksum)).
    #[must_use]
    pub fn completes_checksums(&self) -> bool {
        self.path.socket.tx_checksum
    }

    /// What this queue has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.path.counters
    }

    /// The kernel's counters of this socket.
    ///
    /// # Errors
    /// The system's.
    pub fn statistics(&self) -> io::Result<Statistics> {
        Statistics::of(self)
    }

    /// Where the frames are now.
    #[must_use]
    pub fn accounting(&self) -> FrameAccounting {
        self.path.accounting()
    }
}

impl AsFd for Queue {
    /// The socket: readable when frames have been received; writable when the tx ring is half empty
    /// (so ask for that only while [`Queue::room`] is 0, edge-triggered).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.path.socket.as_fd()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let accounting = self.accounting();
        tracing::debug!(queue = self.id, ?accounting, counters = ?self.path.counters, "closing");
        if !accounting.is_balanced() && !thread::panicking() {
            tracing::error!(
                queue = self.id,
                ?accounting,
                "the frames of the queue don't add up"
            );
            debug_assert!(accounting.is_balanced(), "{accounting:?}");
        }
    }
}
