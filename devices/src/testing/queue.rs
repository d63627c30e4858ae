//! The driver's side of a split virtqueue (virtio 1.2, 2.7), honest or not.

use std::{
    collections::HashMap,
    sync::atomic::{Ordering, fence},
};

use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::wait_for;
use crate::GuestRam;

/// One buffer of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Guest physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
    /// The device writes it (or reads it).
    pub writable: bool,
}

impl Buffer {
    /// A buffer that the device reads.
    pub fn readable(address: u64, len: u32) -> Self {
        let writable = false;
        Self {
            address,
            len,
            writable,
        }
    }

    /// A buffer that the device writes.
    pub fn writable(address: u64, len: u32) -> Self {
        let writable = true;
        Self {
            address,
            len,
            writable,
        }
    }
}

/// A descriptor as it lies in memory (2.7.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical address of the buffer.
    pub address: u64,
    /// Length of the buffer in bytes.
    pub len: u32,
    /// [`Descriptor::NEXT`] and so on.
    pub flags: u16,
    /// Index of the next one.
    pub next: u16,
}

impl Descriptor {
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The device writes the buffer.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;

    /// The bytes in memory.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// An entry of the used ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Head of the chain given back.
    pub head: u32,
    /// Bytes that the device says it wrote.
    pub len: u32,
}

/// A queue's rings in guest memory.
#[derive(Debug)]
pub struct DriverQueue {
    ram: GuestRam,
    index: u16,
    size: u16,
    desc: u64,
    avail: u64,
    used: u64,
    event_idx: bool,
    free: Vec<u16>,
    /// Head -> descriptors of the chains that the device has.
    lent: HashMap<u16, Vec<u16>>,
    avail_idx: u16,
    /// The available index at the last look at the device's wish for kicks.
    kicked_idx: u16,
    used_idx: u16,
}

impl DriverQueue {
    pub(super) fn new(
        ram: GuestRam,
        index: u16,
        size: u16,
        [desc, avail, used]: [u64; 3],
        event_idx: bool,
    ) -> Self {
        Self {
            ram,
            index,
            size,
            desc,
            avail,
            used,
            event_idx,
            free: (0..size).rev().collect(),
            lent: HashMap::new(),
            avail_idx: 0,
            kicked_idx: 0,
            used_idx: 0,
        }
    }

    /// Index of the queue in its device.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Number of entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Where the descriptor table, the available ring and the used ring are.
    pub fn addresses(&self) -> [u64; 3] {
        [self.desc, self.avail, self.used]
    }

    /// Puts a part elsewhere (0 = descriptor table, 1 = available, 2 = used), before
    /// [`enable`](super::TestDriver::enable).
    pub fn relocate(&mut self, part: usize, address: u64) {
        *[&mut self.desc, &mut self.avail, &mut self.used][part] = address;
    }

    fn put<T: ByteValued>(&self, address: u64, value: T) {
        let put = self.ram.write_obj(value, GuestAddress(address));
        put.expect("rings in RAM");
    }

    fn load(&self, address: u64) -> u16 {
        let value = self
            .ram
            .load::<u16>(GuestAddress(address), Ordering::Acquire);
        value.expect("rings in RAM")
    }

    fn store(&self, address: u64, value: u16) {
        let stored = self
            .ram
            .store(value, GuestAddress(address), Ordering::Release);
        stored.expect("rings in RAM");
    }

    /// Writes a descriptor of the table, whatever it says.
    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.put(self.desc + 16 * u64::from(index), descriptor.to_bytes());
    }

    /// Makes `head` available, whatever it is; visible at once.
    pub fn offer(&mut self, head: u16) {
        self.place(head);
        self.show();
    }

    fn place(&mut self, head: u16) {
        let slot = u64::from(self.avail_idx % self.size);
        self.put(self.avail + 4 + 2 * slot, head);
        self.avail_idx = self.avail_idx.wrapping_add(1);
    }

    /// Makes visible what was [prepared](Self::prepare).
    pub fn show(&mut self) {
        self.store(self.avail + 2, self.avail_idx);
    }

    /// Writes the available index, whatever it is.
    pub fn set_avail_idx(&mut self, index: u16) {
        self.avail_idx = index;
        self.store(self.avail + 2, index);
    }

    /// The available index that the driver last wrote.
    pub fn avail_idx(&self) -> u16 {
        self.avail_idx
    }

    /// Free descriptors.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// Makes an honest chain available; returns its head.
    ///
    /// # Panics
    /// There are not enough free descriptors.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.prepare(buffers);
        self.show();
        head
    }

    /// The same for several chains that the device is to see at one time: when they are
    /// [shown](Self::show).
    ///
    /// # Panics
    /// There are not enough free descriptors.
    pub fn prepare(&mut self, buffers: &[Buffer]) -> u16 {
        let at = self
            .free
            .len()
            .checked_sub(buffers.len())
            .expect("free descriptors");
        let chain = self.free.split_off(at);
        let nexts = chain.iter().skip(1).map(|&next| Some(next)).chain([None]);
        for ((&index, buffer), next) in chain.iter().zip(buffers).zip(nexts) {
            let write = if buffer.writable {
                Descriptor::WRITE
            } else {
                0
            };
            self.set_descriptor(
                index,
                Descriptor {
                    address: buffer.address,
                    len: buffer.len,
                    flags: write | next.map_or(0, |_| Descriptor::NEXT),
                    next: next.unwrap_or(0),
                },
            );
        }
        let head = *chain.first().expect("at least one buffer");
        self.lent.insert(head, chain);
        self.place(head);
        head
    }

    /// The next used entry, if there is one.
    ///
    /// # Panics
    /// The device gave back what it was not lent by [`add`](Self::add), unless nothing was.
    pub fn take_used(&mut self) -> Option<Used> {
        if self.used_idx() == self.used_idx {
            return None;
        }
        let slot = self.used + 4 + 8 * u64::from(self.used_idx % self.size);
        let entry = self.ram.read_obj::<[u32; 2]>(GuestAddress(slot));
        let [head, len] = entry.expect("rings in RAM");
        self.used_idx = self.used_idx.wrapping_add(1);
        let chain = u16::try_from(head)
            .ok()
            .and_then(|head| self.lent.remove(&head));
        assert!(
            chain.is_some() || self.lent.is_empty(),
            "chain {head} was not lent"
        );
        self.free.extend(chain.unwrap_or_default());
        Some(Used { head, len })
    }

    /// Waits for the next used entry.
    pub fn wait_used(&mut self) -> Used {
        wait_for("a used buffer", || self.take_used())
    }

    /// The used index as the device wrote it.
    pub fn used_idx(&self) -> u16 {
        self.load(self.used + 2)
    }

    /// The used ring's flags: 1 = the device does not need kicks (without EVENT_IDX).
    pub fn used_flags(&self) -> u16 {
        self.load(self.used)
    }

    /// `avail_event`: the device wants a kick for the entry with this index (with EVENT_IDX).
    pub fn avail_event(&self) -> u16 {
        self.load(self.used + 4 + 8 * u64::from(self.size))
    }

    /// Asks for an interrupt at the used entry with this index (with EVENT_IDX).
    pub fn set_used_event(&self, index: u16) {
        self.store(self.avail + 4 + 2 * u64::from(self.size), index);
    }

    /// Writes the available ring's flags: 1 = no interrupts, please (without EVENT_IDX).
    pub fn set_avail_flags(&self, flags: u16) {
        self.store(self.avail, flags);
    }

    /// Whether the device asked for a kick for what was made available since this was last asked
    /// (2.7.10).
    pub fn wants_kick(&mut self) -> bool {
        let old = std::mem::replace(&mut self.kicked_idx, self.avail_idx);
        let new = self.avail_idx;
        fence(Ordering::SeqCst);
        if !self.event_idx {
            return self.used_flags() & 1 == 0;
        }
        let event = self.avail_event();
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }
}
