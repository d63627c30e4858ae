//! From a head index to a chain's snapshot (virtio 1.2, 2.7.5).

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

use super::{
    Chain, QueueFault,
    map::{GuestMap, Ring},
};

/// Bytes of a descriptor: address (8), length (4), flags (2), next (2).
pub(super) const DESCRIPTOR_SIZE: u32 = 16;

/// Where descriptors are read from.
pub(super) struct Walker<'a> {
    pub(super) map: &'a GuestMap,
    pub(super) table: &'a Ring,
    pub(super) size: u16,
    /// VIRTIO_F_INDIRECT_DESC was negotiated.
    pub(super) indirect: bool,
}

#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn new(address: u64, rest: u64) -> Self {
        let [l0, l1, l2, l3, f0, f1, n0, n1] = rest.to_le_bytes();
        Self {
            address,
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }

    fn has(self, flag: u32) -> bool {
        u32::from(self.flags) & flag != 0
    }
}

/// An indirect table (2.7.5.3).
#[derive(Clone, Copy)]
struct Indirect {
    address: u64,
    entries: u32,
}

impl Walker<'_> {
    /// Reads the chain that starts at `head`, each descriptor exactly once.
    pub(super) fn walk(&self, head: u16, chain: &mut Chain) -> Result<(), QueueFault> {
        chain.begin(head);
        let mut indirect = None;
        let mut index = head;
        // The bound also ends loops: a chain can't be longer than the queue (2.7.5.3.1).
        let mut left = self.size;
        loop {
            let descriptor = match indirect {
                None => self.direct(index)?,
                Some(table) => self.in_table(table, index)?,
            };
            if descriptor.has(VRING_DESC_F_INDIRECT) {
                if indirect.is_some() {
                    return Err(QueueFault::Indirect(head));
                }
                indirect = Some(self.enter(head, descriptor)?);
                index = 0;
                continue;
            }
            left = left.checked_sub(1).ok_or(QueueFault::ChainTooLong(head))?;
            let writable = descriptor.has(VRING_DESC_F_WRITE);
            chain.add(descriptor.address, descriptor.len, writable)?;
            if !descriptor.has(VRING_DESC_F_NEXT) {
                return Ok(());
            }
            index = descriptor.next;
        }
    }

    /// Fetches the start of the buffer that descriptor `head` is of now, or of its table, into the cache. All of
    /// it is looked at again, and checked, by [`walk`](Self::walk): what is not right here is no matter.
    pub(super) fn prefetch(&self, head: u16) {
        if let Ok(descriptor) = self.direct(head) {
            self.map.prefetch(descriptor.address);
        }
    }

    /// Checks a descriptor that refers to a table. Its WRITE flag is ignored (2.7.5.3.2).
    fn enter(&self, head: u16, descriptor: Descriptor) -> Result<Indirect, QueueFault> {
        let whole = descriptor.len > 0 && descriptor.len.is_multiple_of(DESCRIPTOR_SIZE);
        if !self.indirect || !whole || descriptor.has(VRING_DESC_F_NEXT) {
            return Err(QueueFault::Indirect(head));
        }
        Ok(Indirect {
            address: descriptor.address,
            entries: descriptor.len / DESCRIPTOR_SIZE,
        })
    }

    fn direct(&self, index: u16) -> Result<Descriptor, QueueFault> {
        if index >= self.size {
            return Err(QueueFault::DescriptorIndex(index));
        }
        let offset = usize::from(index) * DESCRIPTOR_SIZE as usize;
        let address = self.table.read_u64(offset);
        Ok(Descriptor::new(address, self.table.read_u64(offset + 8)))
    }

    fn in_table(&self, table: Indirect, index: u16) -> Result<Descriptor, QueueFault> {
        if u32::from(index) >= table.entries {
            return Err(QueueFault::DescriptorIndex(index));
        }
        let read = |offset: u64| self.map.read_u64(table.address.checked_add(offset)?);
        let offset = u64::from(index) * u64::from(DESCRIPTOR_SIZE);
        read(offset)
            .zip(read(offset + 8))
            .map(|(address, rest)| Descriptor::new(address, rest))
            .ok_or(QueueFault::BufferNotInRam {
                address: table.address,
                len: table.entries * DESCRIPTOR_SIZE,
            })
    }
}
