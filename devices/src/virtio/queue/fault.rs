//! What a driver can do wrong with a queue.

/// A driver broke the rules of the split virtqueue (virtio 1.2, section 2.7).
///
/// Never a host error, and never a reason to end the VM: the queue that it happened on stops, the
/// device says DEVICE_NEEDS_RESET, and all is well again after the driver reset it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueFault {
    /// QueueNum is no power of two or above the queue's maximum (2.7)
    #[error("the queue size {0} is zero, no power of two or above the maximum")]
    Size(u16),
    /// A ring's address does not have the alignment of 2.7 (16, 2 and 4 bytes).
    #[error("the {part} at {address:#x} is misaligned")]
    Misaligned {
        /// Which of the three parts.
        part: RingPart,
        /// Its guest physical address.
        address: u64,
    },
    /// A ring does not lie wholly in one region of guest RAM.
    #[error("the {part} at {address:#x} does not lie in guest RAM")]
    NotInRam {
        /// Which of the three parts.
        part: RingPart,
        /// Its guest physical address.
        address: u64,
    },
    /// Two parts of the queue share bytes.
    #[error("the {0} and the {1} overlap")]
    Overlap(RingPart, RingPart),
    /// The available index went back, or further than the ring has entries (2.7.6).
    #[error("the available index moved to {found} while the device is at {expected}")]
    AvailIndex {
        /// What the driver wrote.
        found: u16,
        /// The device's next entry.
        expected: u16,
    },
    /// An available entry or a `next` field names no descriptor of its table.
    #[error("descriptor index {0} is outside the descriptor table")]
    DescriptorIndex(u16),
    /// A chain has more descriptors than the queue has entries, or loops (2.7.5.3.1).
    #[error("the descriptor chain at {0} is longer than the queue, or loops")]
    ChainTooLong(u16),
    /// The lengths of a chain add up to 4 GiB or more (2.7.4.1).
    #[error("the descriptor chain at {0} adds up to 4 GiB or more")]
    ChainTooBig(u16),
    /// A device-readable descriptor follows a device-writable one (2.7.4.2).
    #[error("the descriptor chain at {0} has a readable buffer after a writable one")]
    Order(u16),
    /// An indirect descriptor that breaks 2.7.5.3: not negotiated, nested, together with NEXT, or
    /// a table whose length is zero or no multiple of 16.
    #[error("the indirect descriptor in the chain at {0} is not valid")]
    Indirect(u16),
    /// A buffer or an indirect table is not (wholly) guest RAM.
    #[error("the buffer at {address:#x}, {len} bytes, does not lie in guest RAM")]
    BufferNotInRam {
        /// Its guest physical address.
        address: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// A chain of a kind that this queue does not carry (for example a writable buffer on a
    /// transmit queue).
    #[error("the descriptor chain at {0} goes the wrong way for this queue")]
    Direction(u16),
}

/// The three parts of a split virtqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingPart {
    /// The descriptor table (2.7.5).
    Descriptors,
    /// The available ring, the "driver area" (2.7.6).
    Available,
    /// The used ring, the "device area" (2.7.8).
    Used,
}

impl std::fmt::Display for RingPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "descriptor table",
            Self::Available => "available ring",
            Self::Used => "used ring",
        })
    }
}
