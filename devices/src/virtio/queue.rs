//! The split virtqueue (virtio 1.2, section 2.7) from the device's side.
//!
//! Registers hold a *configured* queue ([`QueueState`], plain numbers). [`LiveQueue::new`] checks
//! it once and resolves the rings to host memory; from then on the queue belongs to one thread.
//! Everything that the driver can write is read once, checked, and only then used; what breaks the
//! rules is a [`QueueFault`].
//!
//! The walk is our own because it works in bursts: taken chains and used entries cost no index
//! write, no fence and no interrupt decision each. The order of a burst is
//! [`pop`](LiveQueue::pop) and [`push_used`](LiveQueue::push_used) many times,
//! [`publish`](LiveQueue::publish) once, [`needs_interrupt`](LiveQueue::needs_interrupt) once; before
//! sleeping, [`enable_kicks`](LiveQueue::enable_kicks).

mod chain;
mod fault;
mod map;
mod prefetch;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{Ordering, fence},
};

use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ring::{
        VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT,
    },
};
use virtio_queue::{Error as StateError, Queue};

use crate::GuestRam;

pub use chain::{Chain, Reader, Writer};
pub use fault::{QueueFault, RingPart};
use map::{GuestMap, Ring};
pub use virtio_queue::QueueState;
use walk::{DESCRIPTOR_SIZE, Walker};

/// Feature bit: the driver follows virtio 1.x, not the legacy interface.
pub const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
/// Feature bit: indirect descriptor tables (2.7.5.3).
pub const INDIRECT_DESC: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;
/// Feature bit: the driver may reset a queue and enable it again while the device works (2.6.1).
pub const RING_RESET: u64 = 1 << 40;
/// Feature bit: `used_event` and `avail_event` instead of flags (2.7.7, 2.7.10).
pub const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

/// Offset of `flags` in both the available and the used ring.
const FLAGS: usize = 0;
/// Offset of `idx` in both rings.
const IDX: usize = 2;
/// Offset of the first entry in both rings.
const ENTRIES: usize = 4;
/// VIRTQ_USED_F_NO_NOTIFY (2.7.10): the device does not need kicks.
const NO_NOTIFY: u16 = 1;
/// Bytes of an available entry: a descriptor index.
const AVAIL_ENTRY: usize = 2;
/// How many chains ahead their first bytes are fetched into the cache: the driver's CPU wrote them, and one
/// chain's work is about as long as such a fetch takes.
const AHEAD: u16 = 4;
/// Bytes of a used entry: id (4), len (4).
const USED_ENTRY: usize = 8;

/// A queue that a device works on: owned by one thread, taken away only by ending that thread.
#[derive(Debug)]
pub struct LiveQueue {
    map: Arc<GuestMap>,
    table: Ring,
    avail: Ring,
    used: Ring,
    size: u16,
    event_idx: bool,
    indirect: bool,
    /// The next available entry to take.
    next_avail: u16,
    /// The driver's available index when it was last read.
    seen_avail: u16,
    /// The next used entry to write.
    next_used: u16,
    /// The used index that the driver can see.
    published_used: u16,
    /// The used index at the last interrupt decision.
    signalled_used: u16,
}

/// A point to which a queue can be [rewound](LiveQueue::rewind).
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Mark {
    next_avail: u16,
    next_used: u16,
}

impl LiveQueue {
    /// Takes over a configured queue.
    ///
    /// # Errors
    /// The size or the place of a ring breaks the rules of 2.7.
    pub fn new(state: &QueueState, ram: &GuestRam, features: u64) -> Result<Self, QueueFault> {
        Queue::try_from(*state).map_err(|error| invalid(state, &error))?;
        let size = usize::from(state.size);
        let event_idx = features & EVENT_IDX != 0;
        // The event fields after the rings exist only if they were negotiated.
        let event = if event_idx { 2 } else { 0 };
        let parts = [
            (
                RingPart::Descriptors,
                state.desc_table,
                size * DESCRIPTOR_SIZE as usize,
                16,
            ),
            (
                RingPart::Available,
                state.avail_ring,
                ENTRIES + size * AVAIL_ENTRY + event,
                2,
            ),
            (
                RingPart::Used,
                state.used_ring,
                ENTRIES + size * USED_ENTRY + event,
                4,
            ),
        ];
        let map = Arc::new(GuestMap::new(ram));
        let ring = |(part, address, len, align)| {
            Ring::new(&map, address, len, align).ok_or(QueueFault::NotInRam { part, address })
        };
        let [table, avail, used] = parts.map(ring);
        let (table, avail, used) = (table?, avail?, used?);
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let ((one, start, len, _), (other, other_start, other_len, _)) = (parts[a], parts[b]);
            // No overflow: all three lie in RAM.
            if start < other_start + other_len as u64 && other_start < start + len as u64 {
                return Err(QueueFault::Overlap(one, other));
            }
        }
        Ok(Self {
            map,
            table,
            avail,
            used,
            size: state.size,
            event_idx,
            indirect: features & INDIRECT_DESC != 0,
            next_avail: state.next_avail,
            seen_avail: state.next_avail,
            next_used: state.next_used,
            published_used: state.next_used,
            signalled_used: state.next_used,
        })
    }

    /// Number of entries: also the most chains that can be outstanding.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Scratch for [`pop`](Self::pop), to be made once and used again and again.
    pub fn new_chain(&self) -> Chain {
        Chain::new(Arc::clone(&self.map), self.size)
    }

    /// How many chains wait to be taken. Reads the driver's index only when the ones that were
    /// seen before are all taken, so a burst costs one access to the shared cache line.
    ///
    /// # Errors
    /// The driver's index is not possible.
    pub fn available(&mut self) -> Result<u16, QueueFault> {
        if self.seen_avail == self.next_avail {
            // Acquire: entries and descriptors are read after the index that announces them.
            self.seen_avail = self.check_avail(self.avail.load_u16(IDX, Ordering::Acquire))?;
        }
        Ok(self.seen_avail.wrapping_sub(self.next_avail))
    }

    /// Checks the driver's index: it is never behind what was seen of it before, and never more
    /// than the ring ahead of what it was given back.
    fn check_avail(&self, found: u16) -> Result<u16, QueueFault> {
        let seen = self.seen_avail.wrapping_sub(self.published_used);
        let ahead = found.wrapping_sub(self.published_used);
        if ahead > self.size || ahead < seen {
            return Err(QueueFault::AvailIndex {
                found,
                expected: self.next_avail,
            });
        }
        Ok(found)
    }

    /// Takes the next chain into `chain`; false if there is none.
    ///
    /// Each chain taken must come back by [`push_used`](Self::push_used) or
    /// [`rewind`](Self::rewind).
    ///
    /// # Errors
    /// The driver broke the rules: the queue is not to be used any more.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueFault> {
        if self.available()? == 0 {
            return Ok(false);
        }
        if self.seen_avail.wrapping_sub(self.next_avail) > AHEAD {
            let soon = self.head_at(self.next_avail.wrapping_add(AHEAD));
            self.walker().prefetch(soon);
        }
        self.walker().walk(self.head_at(self.next_avail), chain)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(true)
    }

    /// What the available ring has at `position`.
    fn head_at(&self, position: u16) -> u16 {
        let slot = usize::from(position & (self.size - 1));
        self.avail
            .load_u16(ENTRIES + slot * AVAIL_ENTRY, Ordering::Relaxed)
    }

    fn walker(&self) -> Walker<'_> {
        Walker {
            map: &self.map,
            table: &self.table,
            size: self.size,
            indirect: self.indirect,
        }
    }

    /// Gives a chain back with `written` bytes in its writable part. The driver sees it at the
    /// next [`publish`](Self::publish).
    pub fn push_used(&mut self, head: u16, written: u32) {
        let slot = usize::from(self.next_used & (self.size - 1));
        let entry = ENTRIES + slot * USED_ENTRY;
        self.used.store_u32(entry, u32::from(head));
        self.used.store_u32(entry + 4, written);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Remembers this point, for [`rewind`](Self::rewind).
    pub fn mark(&self) -> Mark {
        Mark {
            next_avail: self.next_avail,
            next_used: self.next_used,
        }
    }

    /// Puts all chains back that were taken since `mark`, and forgets the used entries since then,
    /// which must not have been published.
    pub fn rewind(&mut self, mark: Mark) {
        debug_assert!(
            self.next_used.wrapping_sub(mark.next_used)
                <= self.next_used.wrapping_sub(self.published_used),
            "rewound past published entries"
        );
        self.next_avail = mark.next_avail;
        self.next_used = mark.next_used;
    }

    /// Shows the driver all used entries at once; false if there were none.
    pub fn publish(&mut self) -> bool {
        if self.next_used == self.published_used {
            return false;
        }
        // Release: buffers and entries are written before the index that announces them.
        self.used.store_u16(IDX, self.next_used, Ordering::Release);
        self.published_used = self.next_used;
        true
    }

    /// Whether the driver wants an interrupt for what was published since the last decision
    /// (2.7.7.2). Once per burst, after [`publish`](Self::publish).
    pub fn needs_interrupt(&mut self) -> bool {
        let new = self.published_used;
        let old = std::mem::replace(&mut self.signalled_used, new);
        if new == old {
            return false;
        }
        // The driver writes its wish and then looks at our index; we write the index and then look
        // at its wish. With a full barrier on both sides one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event_at = ENTRIES + usize::from(self.size) * AVAIL_ENTRY;
            let event = self.avail.load_u16(event_at, Ordering::Relaxed);
            // Was entry `event` among those from `old` up to `new`, modulo 2^16?
            return new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old);
        }
        let flags = self.avail.load_u16(FLAGS, Ordering::Relaxed);
        u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
    }

    /// Asks for a kick at the next available chain (2.7.10). True: chains wait already (so no kick
    /// will come for them), take them first.
    ///
    /// # Errors
    /// As [`available`](Self::available).
    pub fn enable_kicks(&mut self) -> Result<bool, QueueFault> {
        self.want_kicks_beyond(0)
    }

    /// The same for a device that can't go on with the chains that wait, because it needs more than
    /// `known` of them: asks for a kick when there are. True: there are by now.
    ///
    /// Without EVENT_IDX a driver can't be told how many: the kick comes with the next chain.
    ///
    /// # Errors
    /// As [`available`](Self::available).
    pub fn enable_kicks_beyond(&mut self, known: u16) -> Result<bool, QueueFault> {
        self.want_kicks_beyond(known)
    }

    fn want_kicks_beyond(&mut self, known: u16) -> Result<bool, QueueFault> {
        if self.event_idx {
            let from = self.next_avail.wrapping_add(known);
            let event_at = ENTRIES + usize::from(self.size) * USED_ENTRY;
            self.used.store_u16(event_at, from, Ordering::Relaxed);
        } else {
            self.used.store_u16(FLAGS, 0, Ordering::Relaxed);
        }
        // The mirror image of `needs_interrupt`: our wish first, then its index.
        fence(Ordering::SeqCst);
        self.seen_avail = self.check_avail(self.avail.load_u16(IDX, Ordering::Acquire))?;
        Ok(self.seen_avail.wrapping_sub(self.next_avail) > known)
    }

    /// Says that kicks are not needed while the device polls. With EVENT_IDX there is nothing to
    /// do: a driver that has passed `avail_event` does not kick again.
    pub fn disable_kicks(&mut self) {
        if !self.event_idx {
            self.used.store_u16(FLAGS, NO_NOTIFY, Ordering::Relaxed);
        }
    }
}

fn invalid(state: &QueueState, error: &StateError) -> QueueFault {
    let misaligned = |part, address| QueueFault::Misaligned { part, address };
    match error {
        StateError::InvalidDescTableAlign => misaligned(RingPart::Descriptors, state.desc_table),
        StateError::InvalidAvailRingAlign => misaligned(RingPart::Available, state.avail_ring),
        StateError::InvalidUsedRingAlign => misaligned(RingPart::Used, state.used_ring),
        _ => QueueFault::Size(state.size),
    }
}
