#![expect(
    unsafe_code,
    reason = "reads and writes rings in memory that is shared with the kernel"
)]
//! The rings between this process and the kernel: one writes, the other reads.
//!
//! # Who writes what
//! A ring has two indices of 32 bits that run freely and wrap, and a power-of-two number of entries. The
//! producer's index says how many entries were ever made visible, the consumer's how many were
//! ever taken. Here the process is the producer of the fill and tx rings ([`Producer`]), and the
//! consumer of the completion and rx rings ([`Consumer`]); the kernel is the other side (Linux,
//! `net/xdp/xsk_queue.h`, Documentation/networking/af_xdp.rst).
//!
//! # Orderings
//! Entries are plain memory; the indices hand them over.
//! - The producer writes entries, then stores its index with `Release`; the consumer loads it with
//!   `Acquire`, so it sees the entries whole.
//! - The consumer reads entries, then stores its index with `Release`; the producer loads it with
//!   `Acquire`, so it does not overwrite an entry that is still being read.
//! - Each side's own index has one writer, so a local copy of it is always right.
//! - `needs_wakeup` is read after a `SeqCst` fence. The kernel sets the flag and then looks for
//!   entries once more; we publish and then look at the flag. Without a full barrier both sides
//!   could miss the other's store (store buffering), and the ring would sleep with entries in it.
//!
//! # Guards
//! [`Producer::reserve`] and [`Consumer::peek`] return guards that change nothing unless they are
//! committed: dropped on an error or by a panic, the slots are as they were.

use std::{marker::PhantomData, ptr::NonNull, sync::atomic::AtomicU64};

use crate::sync::{AtomicU32, Entry, Ordering, fence};

/// Descriptor in the rx and tx rings (`struct xdp_desc`, linux/if_xdp.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// Offset of the first byte of the frame in the UMEM.
    pub(crate) address: u64,
    /// Bytes of the frame.
    pub(crate) length: u32,
    /// Flags; `XDP_PKT_CONTD` says that the frame goes on in the next descriptor.
    pub(crate) options: u32,
}

/// `XDP_RING_NEED_WAKEUP` (linux/if_xdp.h): the kernel waits for a system call.
pub(crate) const NEED_WAKEUP: u32 = 1;

/// Where the parts of a ring are in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout<T> {
    /// Producer's index.
    pub(crate) producer: NonNull<AtomicU32>,
    /// Consumer's index.
    pub(crate) consumer: NonNull<AtomicU32>,
    /// The kernel's flags.
    pub(crate) flags: NonNull<AtomicU32>,
    /// The first of the entries.
    pub(crate) entries: NonNull<Entry<T>>,
    /// Number of entries, a power of two.
    pub(crate) size: u32,
}

/// What both sides share: the layout, with its access rules.
#[derive(Debug)]
struct Shared<T> {
    layout: Layout<T>,
    _entries: PhantomData<T>,
}

// SAFETY: the pointers are to memory that any thread may use, and that outlives the ring (contract
// of `Producer::new` and `Consumer::new`); entries are moved by value.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Copy> Shared<T> {
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid and aligned for the ring's life; both sides access it atomically only.
        unsafe { self.layout.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.layout.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.layout.flags.as_ref() }
    }

    fn slot(&self, index: u32) -> &Entry<T> {
        let slot = index & (self.layout.size - 1);
        // SAFETY: `slot` is below `size`, the number of entries that the layout has.
        let entry = unsafe { self.layout.entries.add(slot as usize) };
        // SAFETY: valid for the ring's life.
        unsafe { entry.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        fence(Ordering::SeqCst);
        self.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// The side of a ring that puts entries in.
///
/// Entries are first staged (reserved and committed), then published together: the kernel sees
/// nothing before.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    shared: Shared<T>,
    /// Index of the next slot to stage.
    staged: u32,
    /// Our index as the kernel sees it.
    published: u32,
    /// The kernel's index when last looked at.
    consumed: u32,
}

impl<T: Copy> Producer<T> {
    /// # Safety
    /// All of `layout` must be valid and mapped for reading and writing as long as the ring
    /// lives, `size` must be a power of two, and this must be the only producer.
    pub(crate) unsafe fn new(layout: Layout<T>) -> Self {
        let shared = Shared {
            layout,
            _entries: PhantomData,
        };
        let published = shared.producer().load(Ordering::Relaxed);
        let consumed = shared.consumer().load(Ordering::Acquire);
        Self {
            shared,
            staged: published,
            published,
            consumed,
        }
    }

    /// Number of slots that can be staged now. Looks at the kernel's index only if the last look
    /// left fewer than `wanted`.
    pub(crate) fn room(&mut self, wanted: u32) -> u32 {
        if self.known_room() < wanted {
            self.consumed = self.shared.consumer().load(Ordering::Acquire);
        }
        self.known_room()
    }

    /// Reserves `count` slots, all or none.
    pub(crate) fn reserve(&mut self, count: u32) -> Option<Reservation<'_, T>> {
        if self.room(count) < count {
            return None;
        }
        Some(Reservation {
            ring: self,
            count,
            written: 0,
        })
    }

    /// Makes all staged entries visible to the kernel; returns how many.
    pub(crate) fn publish(&mut self) -> u32 {
        let count = self.staged.wrapping_sub(self.published);
        if count != 0 {
            self.published = self.staged;
            self.shared
                .producer()
                .store(self.published, Ordering::Release);
        }
        count
    }

    /// Number of entries that are staged and not yet published.
    pub(crate) fn staged(&self) -> u32 {
        self.staged.wrapping_sub(self.published)
    }

    /// Number of published entries that the kernel has not taken yet.
    pub(crate) fn pending(&self) -> u32 {
        let consumed = self.shared.consumer().load(Ordering::Acquire);
        self.published
            .wrapping_sub(consumed)
            .min(self.shared.layout.size)
    }

    /// Whether the kernel waits for a system call before it looks at this ring.
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.shared.needs_wakeup()
    }

    /// Number of entries that the ring holds.
    pub(crate) fn size(&self) -> u32 {
        self.shared.layout.size
    }

    /// Index of the next entry that is staged. Runs freely.
    pub(crate) fn next_index(&self) -> u32 {
        self.staged
    }

    /// Index of the first entry that the kernel has not taken, or has not told so. Runs freely.
    pub(crate) fn consumed(&self) -> u32 {
        self.shared.consumer().load(Ordering::Acquire)
    }

    fn known_room(&self) -> u32 {
        let used = self.staged.wrapping_sub(self.consumed);
        self.shared.layout.size.saturating_sub(used)
    }
}

impl Producer<Descriptor> {
    /// Writes another address into an entry that is staged or published and not taken yet. A kernel that
    /// takes it at this very moment sees the one or the other, whole.
    pub(crate) fn readdress(&mut self, index: u32, address: u64) {
        let place = NonNull::from(self.shared.slot(index)).cast::<AtomicU64>();
        // SAFETY: an entry is laid out as its descriptor, which begins with the address, aligned to 8
        // bytes; it lives as long as the ring. We are the only ones who write, and by `&mut self`
        // nobody here has a reference to it.
        unsafe { place.as_ref() }.store(address, Ordering::Release);
    }
}

/// Reserved slots of a [`Producer`]; without [`commit`](Self::commit) nothing is staged.
#[derive(Debug)]
#[must_use = "slots are staged by commit() only"]
pub(crate) struct Reservation<'r, T> {
    ring: &'r mut Producer<T>,
    count: u32,
    written: u32,
}

impl<T: Copy> Reservation<'_, T> {
    /// Writes the next reserved slot. Returns false, and does nothing, when all are written.
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if self.written == self.count {
            return false;
        }
        let slot = self
            .ring
            .shared
            .slot(self.ring.staged.wrapping_add(self.written));
        // SAFETY: the slot is in the ring, and was found free: the kernel has consumed it, and does
        // not look at it before it is published.
        unsafe { slot.write(entry) };
        self.written += 1;
        true
    }

    /// Stages what was written.
    pub(crate) fn commit(self) {
        self.ring.staged = self.ring.staged.wrapping_add(self.written);
    }
}

/// The side of a ring that takes entries out.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    shared: Shared<T>,
    /// Index of the next entry to take, as the kernel sees it.
    taken: u32,
    /// The kernel's index when last looked at.
    produced: u32,
}

impl<T: Copy> Consumer<T> {
    /// # Safety
    /// As for [`Producer::new`]; this must be the only consumer.
    pub(crate) unsafe fn new(layout: Layout<T>) -> Self {
        let shared = Shared {
            layout,
            _entries: PhantomData,
        };
        let taken = shared.consumer().load(Ordering::Relaxed);
        let produced = shared.producer().load(Ordering::Acquire);
        Self {
            shared,
            taken,
            produced,
        }
    }

    /// Up to `limit` entries, the oldest first. Looks at the kernel's index only if the last look
    /// left fewer.
    pub(crate) fn peek(&mut self, limit: u32) -> Burst<'_, T> {
        if self.known() < limit {
            self.produced = self.shared.producer().load(Ordering::Acquire);
        }
        let count = self.known().min(limit);
        Burst { ring: self, count }
    }

    /// Number of entries that wait to be taken.
    pub(crate) fn available(&self) -> u32 {
        let produced = self.shared.producer().load(Ordering::Acquire);
        produced
            .wrapping_sub(self.taken)
            .min(self.shared.layout.size)
    }

    fn known(&self) -> u32 {
        // A ring can't hold more than its size, whatever the index says.
        self.produced
            .wrapping_sub(self.taken)
            .min(self.shared.layout.size)
    }
}

/// Entries of a [`Consumer`] to look at; without [`release`](Self::release) all stay in the ring.
#[derive(Debug)]
#[must_use = "entries are taken by release() only"]
pub(crate) struct Burst<'r, T> {
    ring: &'r mut Consumer<T>,
    count: u32,
}

impl<T: Copy> Burst<'_, T> {
    /// Number of entries.
    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// The entry at `position`, counted from the oldest.
    pub(crate) fn get(&self, position: u32) -> Option<T> {
        if position >= self.count {
            return None;
        }
        let slot = self
            .ring
            .shared
            .slot(self.ring.taken.wrapping_add(position));
        // SAFETY: the slot is in the ring, was published by the kernel (Acquire in `peek`), and is
        // not written again before it is released.
        Some(unsafe { slot.read() })
    }

    /// Takes the `count` oldest entries out of the ring: the kernel may write there again.
    pub(crate) fn release(&mut self, count: u32) {
        let count = count.min(self.count);
        if count != 0 {
            self.ring.taken = self.ring.taken.wrapping_add(count);
            self.count -= count;
            self.ring
                .shared
                .consumer()
                .store(self.ring.taken, Ordering::Release);
        }
    }
}
