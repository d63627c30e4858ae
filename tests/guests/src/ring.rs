//! The split virtqueue (virtio 1.2, 2.7) from the driver's side, for a driver that polls.
//!
//! Buffers are single descriptors. What is posted becomes visible, and costs a notification if the device wants one,
//! once a burst.

use core::sync::atomic::{Ordering, fence};

use crate::{
    memory::Region,
    mmio::{Registers, register},
};

/// Bytes of a descriptor: address (8), length (4), flags (2), next (2).
pub const DESCRIPTOR: usize = 16;
/// The chain goes on.
pub const NEXT: u16 = 1;
/// The device writes the buffer.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors (VIRTIO_F_INDIRECT_DESC).
pub const INDIRECT: u16 = 4;
/// Of the available ring's flags: no interrupts.
const NO_INTERRUPT: u16 = 1;
/// Of the used ring's flags: no notifications.
const NO_NOTIFY: u16 = 1;
/// Offsets in both rings.
const FLAGS: usize = 0;
/// Where the index is in both rings.
pub const INDEX: usize = 2;
const ENTRIES: usize = 4;
/// Bytes of an entry.
const AVAIL_ENTRY: usize = 2;
const USED_ENTRY: usize = 8;

/// The memory of a queue, which outlives resets of its device. A copy is the same memory.
#[derive(Debug, Clone, Copy)]
pub struct Rings {
    size: u16,
    /// The descriptor table.
    pub descriptors: Region,
    /// The available ring.
    pub avail: Region,
    /// The used ring.
    pub used: Region,
}

impl Rings {
    /// Takes memory for `size` entries.
    #[must_use]
    pub fn take(size: u16) -> Self {
        let entries = usize::from(size);
        Self {
            size,
            descriptors: Region::take(entries * DESCRIPTOR),
            avail: Region::take(ENTRIES + entries * AVAIL_ENTRY + 2),
            used: Region::take(ENTRIES + entries * USED_ENTRY + 2),
        }
    }

    /// As it was at first.
    pub fn clear(&self) {
        for part in [self.descriptors, self.avail, self.used] {
            part.fill(0, part.size(), 0);
        }
    }
}

/// A queue in use.
#[derive(Debug)]
pub struct Queue {
    registers: Registers,
    index: u16,
    size: u16,
    event_index: bool,
    descriptors: Region,
    avail: Region,
    used: Region,
    /// Buffers posted so far, and of them those that the device can see.
    posted: u16,
    published: u16,
    /// Used buffers taken so far, and how far the device was when we last looked.
    taken: u16,
    seen: u16,
    /// Notifications sent.
    kicks: u64,
}

impl Queue {
    /// Sets up queue `index` with `wanted` entries, or as many as the device has.
    ///
    /// # Panics
    /// The device has no such queue.
    #[must_use]
    pub fn new(registers: Registers, index: u16, wanted: u16, event_index: bool) -> Self {
        registers.write(register::QUEUE_SEL, u32::from(index));
        let most = registers.read(register::QUEUE_NUM_MAX);
        assert!(most > 0, "the device has no queue {index}");
        let size = u16::try_from(most).unwrap_or(u16::MAX).min(wanted);
        Self::on(Rings::take(size), registers, index, event_index)
    }

    /// Sets up queue `index` on memory that was cleared, with as many entries as that is for.
    #[must_use]
    pub fn on(rings: Rings, registers: Registers, index: u16, event_index: bool) -> Self {
        let Rings {
            size,
            descriptors,
            avail,
            used,
        } = rings;
        registers.write(register::QUEUE_SEL, u32::from(index));
        registers.write(register::QUEUE_NUM, u32::from(size));
        registers.write_address(register::QUEUE_DESC, descriptors.address());
        registers.write_address(register::QUEUE_DRIVER, avail.address());
        registers.write_address(register::QUEUE_DEVICE, used.address());
        registers.write(register::QUEUE_READY, 1);
        let mut queue = Self {
            registers,
            index,
            size,
            event_index,
            descriptors,
            avail,
            used,
            posted: 0,
            published: 0,
            taken: 0,
            seen: 0,
            kicks: 0,
        };
        queue.refuse_interrupts();
        queue
    }

    /// Number of entries, which is also that of buffers: their ids are below it.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Notifications sent so far.
    #[must_use]
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Buffers that the device has.
    #[must_use]
    pub fn outstanding(&self) -> u16 {
        self.posted.wrapping_sub(self.taken)
    }

    /// Says what buffer `id` is: `writable` by the device, or to be read.
    pub fn describe(&self, id: u16, address: u64, len: u32, writable: bool) {
        let flags = if writable { WRITE } else { 0 };
        self.set_descriptor(id, address, len, flags, 0);
    }

    /// Makes descriptors 0 and 1 a chain: `question` bytes to be read, then `answer` bytes to be written.
    pub fn describe_exchange(&self, question: (u64, u32), answer: (u64, u32)) {
        self.set_descriptor(0, question.0, question.1, NEXT, 1);
        self.set_descriptor(1, answer.0, answer.1, WRITE, 0);
    }

    /// Writes a descriptor, whatever is in it.
    pub fn set_descriptor(&self, id: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = usize::from(id) * DESCRIPTOR;
        self.descriptors.u64(at).store(address, Ordering::Relaxed);
        let rest = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.descriptors.u64(at + 8).store(rest, Ordering::Relaxed);
    }

    /// Gives buffer `id` to the device, which sees it at the next [`publish`](Self::publish).
    pub fn post(&mut self, id: u16) {
        let slot = usize::from(self.posted & (self.size - 1));
        let entry = self.avail.u16(ENTRIES + slot * AVAIL_ENTRY);
        entry.store(id, Ordering::Relaxed);
        self.posted = self.posted.wrapping_add(1);
    }

    /// Shows the device what was posted, and notifies it if it wants that.
    pub fn publish(&mut self) {
        let (old, new) = (self.published, self.posted);
        if old == new {
            return;
        }
        self.avail.u16(INDEX).store(new, Ordering::Release);
        self.published = new;
        // Our index first, then the device's wish; the device does it the other way round.
        fence(Ordering::SeqCst);
        let wanted = if self.event_index {
            let event = ENTRIES + usize::from(self.size) * USED_ENTRY;
            let event = self.used.u16(event).load(Ordering::Relaxed);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.used.u16(FLAGS).load(Ordering::Relaxed) & NO_NOTIFY == 0
        };
        if wanted {
            self.kick();
        }
    }

    /// Notifies the device, whether it wants that or not.
    pub fn kick(&mut self) {
        self.kicks += 1;
        let index = u32::from(self.index);
        self.registers.write(register::QUEUE_NOTIFY, index);
    }

    /// Shows the device an index of the available ring that may be wrong, and notifies it. The queue is of no use
    /// afterwards.
    pub fn show_index(&mut self, index: u16) {
        self.avail.u16(INDEX).store(index, Ordering::Release);
        self.kick();
    }

    /// Asks for an interrupt at an entry that may make no sense.
    pub fn ask_for_interrupt(&self, event: u16) {
        self.avail.u16(FLAGS).store(0, Ordering::Relaxed);
        let at = ENTRIES + usize::from(self.size) * AVAIL_ENTRY;
        self.avail.u16(at).store(event, Ordering::Relaxed);
    }

    /// Takes back a used buffer: its id, and how many bytes the device wrote.
    ///
    /// # Panics
    /// The device gave back something that it can't have.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        if self.taken == self.seen {
            self.seen = self.used.u16(INDEX).load(Ordering::Acquire);
            if self.taken == self.seen {
                return None;
            }
            self.refuse_interrupts();
        }
        let at = ENTRIES + usize::from(self.taken & (self.size - 1)) * USED_ENTRY;
        let id = self.used.u32(at).load(Ordering::Relaxed);
        let len = self.used.u32(at + 4).load(Ordering::Relaxed);
        let known = u16::try_from(id).ok().filter(|&id| id < self.size);
        let Some(id) = known else {
            panic!(
                "queue {} gave back buffer {id} of {}",
                self.index, self.size
            );
        };
        self.taken = self.taken.wrapping_add(1);
        Some((id, len))
    }

    /// We poll. With an event index, the interrupt is asked for at the buffer that is farthest away, again and again
    /// (2.7.7.1): not one behind, which the device may just be looking at.
    fn refuse_interrupts(&mut self) {
        self.avail.u16(FLAGS).store(NO_INTERRUPT, Ordering::Relaxed);
        if self.event_index {
            let event = ENTRIES + usize::from(self.size) * AVAIL_ENTRY;
            let never = self.seen.wrapping_add(1 << 15);
            self.avail.u16(event).store(never, Ordering::Relaxed);
        }
    }
}
