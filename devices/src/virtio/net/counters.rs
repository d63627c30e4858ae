//! What a queue pair or the control queue did: written by its thread (or, while there is none, by
//! the thread that starts it), readable by all.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer at a time: an ordinary addition, no locked instruction.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(count), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether something is the case, of which the beginnings are counted.
#[derive(Debug, Default)]
pub(super) struct State(bool);

impl State {
    /// Is it the case `now`? One if it was not before.
    pub(super) fn begins(&mut self, now: bool) -> u64 {
        let before = std::mem::replace(&mut self.0, now);
        u64::from(now && !before)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// The live counters of one queue pair, or of the control queue. On cache lines of their own (128
        /// bytes: CPUs fetch them in pairs), as each has another thread that writes it.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(super) struct PairCounters {
            $(pub(super) $name: Counter,)+
        }

        impl PairCounters {
            pub(super) fn snapshot(&self) -> NetCounters {
                NetCounters { $($name: self.$name.get(),)+ }
            }
        }

        /// A snapshot of a virtio-net device's counters since it was made, from the guest's side:
        /// `rx` is what the guest received. Each is right by itself; they were not read at one instant.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct NetCounters {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl NetCounters {
            /// All counters with their names, for logs and metrics.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            pub(super) fn sum(self, other: Self) -> Self {
                Self { $($name: self.$name.wrapping_add(other.$name),)+ }
            }
        }
    };
}

counters! {
    /// Frames that the guest received.
    rx_frames,
    /// Their bytes, without virtio-net headers.
    rx_bytes,
    /// Frames thrown away because they arrived before the driver was ready.
    rx_early,
    /// Frames dropped because they fit in no buffers that the driver can post.
    rx_too_long,
    /// Frames dropped because the buffer was too small for the virtio-net header.
    rx_bad_buffer,
    /// Frames dropped because they are to addresses or VLANs that the driver does not listen to.
    rx_filtered,
    /// Times that reception stopped because the guest had posted no (or too few) buffers. What
    /// was lost meanwhile is counted by the back end.
    rx_starved,
    /// Times that reception stopped because the card's rate limit was reached. What was lost
    /// meanwhile is counted by the back end.
    rx_limited,
    /// Those of `rx_frames` that came in on the interface queue of a pair that the driver does not
    /// use, and were given to the driver by another pair.
    rx_steered,
    /// Those of `rx_frames` that were put behind another one, to be one frame for the guest.
    rx_coalesced,
    /// Bytes of their headers, which the guest does not get once more.
    rx_coalesced_headers,
    /// Frames that the guest got instead: each of two or more of `rx_frames`.
    rx_merged,
    /// Bytes of those.
    rx_merged_bytes,
    /// Frames of many segments that a sender on this host left whole: the guest got them so, as one of `rx_frames` each, or
    /// their segments.
    rx_uncut,
    /// Such frames that were dropped: nobody can tell their datagrams from each other, or their segments have no room in
    /// the guest's receive queue.
    rx_uncut_dropped,
    /// Those of `rx_frames` whose checksum their sender had left undone, and that was completed for a
    /// guest that does not take such frames.
    rx_checksums,
    /// Frames that the back end took to send.
    tx_frames,
    /// Their bytes, without virtio-net headers.
    tx_bytes,
    /// Those of `tx_frames`, segments apart, whose checksum the guest left undone.
    tx_partial,
    /// Those of `tx_frames`, segments apart, whose checksum was completed.
    tx_checksums,
    /// Those of `tx_frames`, segments among them, whose checksum was left to the back end: to the card, or to
    /// the kernel.
    tx_checksums_offloaded,
    /// Frames that were cut into segments, each of which is one of `tx_frames`.
    tx_segmented,
    /// Bytes of those frames.
    tx_segmented_bytes,
    /// Those of `tx_frames` that are segments.
    tx_segments,
    /// Bytes of those.
    tx_segments_bytes,
    /// Those of `tx_frames` that were sent from guest memory, and not copied. Where that is asked for,
    /// the others were copied because they are short, or had to be changed, or lie so that they can't.
    tx_in_place,
    /// Those of them that the wire was not done with when the driver gave their queue up: their
    /// buffers were not given back, and may still have been read for a while.
    tx_unreturned,
    /// Chains dropped because they held no virtio-net header and Ethernet header.
    tx_too_short,
    /// Frames dropped because they are longer than the back end can send.
    tx_too_long,
    /// Frames dropped because they asked for an offload that was not negotiated, or that does not go with
    /// their headers.
    tx_bad_offload,
    /// Frames dropped because the driver gave their queue pair up before there was room to send
    /// them.
    tx_inactive,
    /// Times that sending stopped because the back end had no room.
    tx_blocked,
    /// Times that sending stopped because the card's rate limit was reached.
    tx_limited,
    /// Times that the back end could not give what was queued to the wire (link down).
    tx_carrier_errors,
    /// Kicks of the receive queue.
    rx_kicks,
    /// Kicks of the transmit queue.
    tx_kicks,
    /// Interrupts raised for received and for sent frames.
    interrupts,
    /// Those for sent frames.
    tx_interrupts,
    /// Commands that the driver gave through the control queue.
    control_commands,
    /// Those of them that were refused: unknown, of the wrong length, or asking for what is not
    /// possible.
    control_refused,
    /// Broken rules of the ring protocol; each stopped a queue until the driver's reset.
    guest_faults,
}
