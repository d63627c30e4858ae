//! What to open, as plain data.

use std::fmt;

use crate::{program::AttachMode, tx_metadata::TxMetadata, umem::CHUNK_SIZE};

/// Fewest frames of a queue.
pub const MIN_FRAMES: u32 = 64;

/// Most frames of a queue: 1 GiB of locked memory.
pub const MAX_FRAMES: u32 = 1 << 18;

/// What to open. Plain data; [`Port::open`](crate::Port::open) checks it. Where the sockets and the
/// XDP program come from is said apart, by a [`Source`](crate::Source).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Name of an interface in the calling thread's network namespace, or an alternative name of it.
    pub ifname: String,
    /// Where the XDP program is to run. `None`: natively if that works, else in skb mode; on an interface
    /// that has ports, such as a bond, in skb mode only. A program of others is not moved: it must run there
    /// already.
    pub mode: Option<AttachMode>,
    /// Copy mode even where the driver has zero-copy.
    pub force_copy: bool,
    /// Number of consecutive queues.
    pub queues: u32,
    /// The first of them.
    pub start_queue: u32,
    /// UMEM frames per queue, of 4096 bytes of locked memory each; a power of two from
    /// [`MIN_FRAMES`] to [`MAX_FRAMES`].
    pub frames: u32,
    /// Open only if at least this is reached, on every queue.
    pub require: Require,
    /// Frames to send in place may lie in several pieces, whatever the MTU: ask for frames of several
    /// descriptors (`XDP_USE_SG`, Linux 6.6) where that does not cost the driver's zero-copy mode.
    pub scattered: bool,
    /// Whether checksums of frames may be left to the card
    /// ([`Queue::send_with_checksum`](crate::Queue::send_with_checksum)).
    pub tx_metadata: TxMetadata,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            ifname: String::new(),
            mode: None,
            force_copy: false,
            queues: 1,
            start_queue: 0,
            frames: 4096,
            require: Require::Any,
            scattered: false,
            tx_metadata: TxMetadata::Auto,
        }
    }
}

impl PortConfig {
    /// Bytes of memory that will be locked: for a user without CAP_IPC_LOCK, they count against
    /// RLIMIT_MEMLOCK together with those of all other AF_XDP sockets of that user. A
    /// [`SharedMemory`](crate::SharedMemory) comes on top, once per queue.
    #[must_use]
    pub fn locked_memory(&self) -> u64 {
        u64::from(self.queues)
            .saturating_mul(u64::from(self.frames))
            .saturating_mul(u64::from(CHUNK_SIZE))
    }
}

/// The least that an interface must reach to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Require {
    /// Whatever works.
    #[default]
    Any,
    /// The XDP program runs in the driver.
    Native,
    /// And the driver reads and writes the frames in place.
    ZeroCopy,
}

impl fmt::Display for Require {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::Native => "native",
            Self::ZeroCopy => "zerocopy",
        })
    }
}
