//! Numbers that a queue keeps: its own counters, the kernel's, and where the frames are.

use std::{io, os::fd::AsFd};

/// What a queue has done since it was opened. Wraps at 2^64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that were received and taken.
    pub rx_packets: u64,
    /// Bytes of those.
    pub rx_bytes: u64,
    /// Frames that were received and thrown away by [`Queue::discard`](crate::Queue::discard).
    pub rx_discarded: u64,
    /// Frames that were received in more than 18 fragments and dropped.
    pub rx_too_long: u64,
    /// System calls that told the kernel of new entries in the fill ring.
    pub rx_wakeups: u64,
    /// Frames that were queued to be sent.
    pub tx_packets: u64,
    /// Bytes of those, with the zeros behind short ones.
    pub tx_bytes: u64,
    /// Frames of `tx_packets` that were sent in place
    /// ([`Queue::send_in_place`](crate::Queue::send_in_place)).
    pub tx_in_place: u64,
    /// Frames of those that the kernel reported as lost (peer down, longer than the MTU, queue
    /// full in the driver).
    pub tx_lost: u64,
    /// System calls that told the kernel of new entries in the tx ring.
    pub tx_wakeups: u64,
    /// Flushes after which the kernel had not taken all frames (they stay in the ring).
    pub tx_stalls: u64,
    /// Descriptors from the kernel for memory that it did not have. Always 0, or a bug.
    pub invalid_descriptors: u64,
}

/// The kernel's counters of a socket (`XDP_STATISTICS`,
/// Documentation/networking/af_xdp.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Received frames that were dropped, for another reason than those below; longer than a chunk
    /// in a queue without multi-buffer, for one.
    pub rx_dropped: u64,
    /// Invalid descriptors in the fill ring.
    pub rx_invalid_descs: u64,
    /// Invalid descriptors in the tx ring.
    pub tx_invalid_descs: u64,
    /// Received frames that were dropped because the rx ring was full.
    pub rx_ring_full: u64,
    /// Times that a frame was received and the fill ring was empty.
    pub rx_fill_ring_empty_descs: u64,
    /// Times that the kernel looked for a frame to send and found none.
    pub tx_ring_empty_descs: u64,
}

impl Statistics {
    /// Those of an AF_XDP socket, by any of its descriptors and from any thread.
    ///
    /// # Errors
    /// The system's: it is no such socket, or not bound any more.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let raw = rustix::net::sockopt::xdp_statistics(socket)?;
        // Those that Linux 5.9 brought are there: it also brought the link that the program needs.
        Ok(Self {
            rx_dropped: raw.rx_dropped,
            rx_invalid_descs: raw.rx_invalid_descs,
            tx_invalid_descs: raw.tx_invalid_descs,
            rx_ring_full: raw.rx_ring_full.unwrap_or(0),
            rx_fill_ring_empty_descs: raw.rx_fill_ring_empty_descs.unwrap_or(0),
            tx_ring_empty_descs: raw.tx_ring_empty_descs.unwrap_or(0),
        })
    }
}

/// Where the frames of a queue are. They add up: see [`is_balanced`](Self::is_balanced).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameAccounting {
    /// Frames in all.
    pub total: u32,
    /// In the pool, free to send with.
    pub free: u32,
    /// In the fill ring, for the kernel to receive into.
    pub fill: u32,
    /// Taken from the fill ring by the kernel or the driver, and not received yet.
    pub receiving: u32,
    /// In the rx ring, received and not taken yet.
    pub rx: u32,
    /// In the tx ring, flushed or not.
    pub tx: u32,
    /// Taken from the tx ring by the kernel or the driver, and not completed yet. Stays so while
    /// a link is down that a driver in zero-copy mode had taken frames for.
    pub transmitting: u32,
    /// In the completion ring, sent and not reclaimed yet.
    pub completion: u32,
    /// How many of those in `tx`, `transmitting` and `completion` are not of the queue's memory, but
    /// pieces of frames that are sent in place.
    pub in_place: u32,
}

impl FrameAccounting {
    /// Whether every frame is in exactly one place.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let places = [
            self.free,
            self.fill,
            self.receiving,
            self.rx,
            self.tx,
            self.transmitting,
            self.completion,
        ];
        let sum = places.iter().copied().map(u64::from).sum::<u64>();
        sum == u64::from(self.total) + u64::from(self.in_place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_doubled_frame_shows() {
        let right = FrameAccounting {
            total: 28,
            free: 1,
            fill: 2,
            receiving: 3,
            rx: 4,
            tx: 5,
            transmitting: 6,
            completion: 7,
            in_place: 0,
        };
        assert!(right.is_balanced());
        assert!(!FrameAccounting { free: 0, ..right }.is_balanced());
        let one = |tx| FrameAccounting {
            tx,
            in_place: 1,
            ..right
        };
        assert!(one(6).is_balanced() && !one(5).is_balanced());
        assert!(
            !FrameAccounting {
                completion: 8,
                ..right
            }
            .is_balanced()
        );
    }
}
