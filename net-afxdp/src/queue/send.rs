//! The transmit side of a queue.

use std::io;

use rustix::io::Errno;

use super::{Path, Queue};
use crate::{
    frame::{Frame, FramePool, Side},
    multi_buffer::{MAX_FRAGMENTS, PACKET_CONTINUES},
    ring::Descriptor,
    socket::Kernel,
    tx_metadata::{ChecksumRequest, HAS_METADATA},
};

/// Fewest bytes of a frame that are sent: an Ethernet header. The kernel would read beyond the
/// end of a shorter one.
pub(super) const MIN_FRAME: usize = 14;

/// Bytes that a frame has on the wire at least, without its checksum (IEEE 802.3, `ETH_ZLEN`). Drivers see to that on the
/// way of the kernel's own packets, and not all of them where they send from frame memory.
pub(super) const SHORTEST_SENT: u32 = 60;

/// Frames that the kernel takes in one call in copy mode (`TX_BATCH_SIZE`, net/xdp/xsk.c); since Linux
/// 6.17 it can be told otherwise.
const TX_BATCH: u32 = 32;

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Longer than [`Queue::max_frame`].
    #[error(
        "the frame is longer than this queue can send: a chunk of frame memory (4096 bytes), or as \
         many as the interface's MTU needs if the kernel takes several"
    )]
    TooLong,
    /// Shorter than an Ethernet header.
    #[error("the frame is shorter than an Ethernet header (14 bytes)")]
    TooShort,
    /// Nothing is free now; retry when the queue is writable.
    #[error("no frame memory or ring slot is free now")]
    Full,
    /// Of [`Queue::send_in_place`] only: the frame lies where it can't be sent from.
    #[error(
        "the frame can't be sent from where it is: outside of the memory that the queue knows, or in \
         more pieces than the kernel takes, or the first of them is too short, or all of it (60 bytes)"
    )]
    NotInPlace,
    /// Of [`Queue::send_with_checksum`] only: the checksum has to be completed before.
    #[error(
        "the checksum can't be left to the card: the queue has no TX metadata for it, or it is not \
         within the first chunk of the frame"
    )]
    NoChecksum,
}

impl Queue {
    /// How many frames of any length [`send`](Self::send) would take now. Takes back what was sent
    /// when less than half is free.
    pub fn room(&mut self) -> usize {
        self.path.room()
    }

    /// Queues one frame of `length` bytes, whole or not at all. `fill` is called for each of its
    /// fragments in order (one per chunk of 4096 bytes), and must write all of the slice that it gets,
    /// which holds bytes of earlier frames. Nothing reaches
    /// the kernel before [`flush`](Self::flush); if `fill` panics, nothing is queued.
    ///
    /// A frame of fewer than 60 bytes is sent with zeros behind it, up to the 60 that Ethernet asks for: at the far end
    /// of a veth, too, and in [`counters`](Self::counters).
    ///
    /// # Errors
    /// `TooLong` and `TooShort` concern this frame alone; `Full`: retry when the queue is writable.
    pub fn send(&mut self, length: usize, fill: impl FnMut(&mut [u8])) -> Result<(), SendError> {
        self.path.send(length, fill)
    }

    /// The same with a checksum that is left to the card, or, in copy mode, to the kernel. `fill` writes into its
    /// field what is summed up besides: for TCP and UDP, the sum over the pseudo-header.
    ///
    /// # Errors
    /// `NoChecksum`: complete it, and use [`send`](Self::send). That is so for all frames of a queue whose
    /// [`completes_checksums`](Self::completes_checksums) is false. The others are as there.
    ///
    /// # Example
    /// ```no_run
    /// use net_afxdp::{ChecksumRequest, Port, PortConfig, TxMetadata};
    ///
    /// /// UDP over IPv4, with the sum over the pseudo-header in place of the checksum.
    /// fn send(frame: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    ///     let config = PortConfig {
    ///         ifname: "veth0".to_owned(),
    ///         tx_metadata: TxMetadata::On,
    ///         ..PortConfig::default()
    ///     };
    ///     let mut port = Port::open(&config)?;
    ///     let mut queue = port.take_queues().remove(0);
    ///     // Behind 14 bytes of Ethernet and 20 of IPv4; the field is 6 bytes into the UDP header.
    ///     let checksum = ChecksumRequest { start: 34, offset: 6 };
    ///     queue.send_with_checksum(frame.len(), checksum, |bytes| bytes.copy_from_slice(frame))?;
    ///     queue.flush()?;
    ///     Ok(())
    /// }
    /// ```
    pub fn send_with_checksum(
        &mut self,
        length: usize,
        checksum: ChecksumRequest,
        fill: impl FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        self.path.send_with(length, Some(checksum), fill)
    }

    /// Publishes what was queued and, if the kernel asks for it, wakes it up. It takes several system
    /// calls when the kernel takes fewer frames in one (32 before Linux 6.17); their number is
    /// bounded by that of the frames.
    ///
    /// # Errors
    /// What makes sending impossible for now: `ENETDOWN` (interface switched off), `ENXIO` (it is
    /// gone). The frames stay in the ring and are sent by a later flush. Frames that the kernel lost
    /// and moments of congestion are not errors; they are counted. After congestion
    /// [`unsent`](Self::unsent) is not 0: flush again a moment later.
    pub fn flush(&mut self) -> io::Result<()> {
        self.path.flush()
    }

    /// How many flushed frames the kernel has not taken yet. In copy mode nothing announces the end of
    /// a congestion in the driver: while this is not 0, call [`flush`](Self::flush) again within a
    /// millisecond or so, even if there is nothing new to send.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.path.unsent()
    }
}

impl<K: Kernel> Path<K> {
    pub(super) fn room(&mut self) -> usize {
        if self.free_to_send() < self.pool.total() / 4 {
            self.reap();
        }
        let free = self.free_to_send();
        let chunks = self.socket.rings.tx.room(free).min(free);
        (chunks / self.limits.send_chunks()) as usize
    }

    pub(super) fn send(
        &mut self,
        length: usize,
        fill: impl FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        self.send_with(length, None, fill)
    }

    /// `checksum`: what the card is to complete.
    pub(super) fn send_with(
        &mut self,
        length: usize,
        checksum: Option<ChecksumRequest>,
        fill: impl FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        if length < MIN_FRAME {
            return Err(SendError::TooShort);
        }
        let size = u32::try_from(length).map_err(|_| SendError::TooLong)?;
        let part = self.limits.send_chunk();
        // Nearly all frames have one chunk, so nothing is divided for it, and no room is made for more.
        let chunks = if size <= part { 1 } else { size.div_ceil(part) };
        if chunks > self.limits.send_chunks() {
            return Err(SendError::TooLong);
        }
        if let Some(checksum) = checksum
            && !(self.socket.tx_checksum && checksum.is_within(size.min(part)))
        {
            return Err(SendError::NoChecksum);
        }
        if self.free_to_send() < chunks {
            self.reap();
            if self.free_to_send() < chunks {
                return Err(SendError::Full);
            }
        }
        if chunks == 1 {
            self.send_chunks::<1>(chunks, size, checksum, fill)
        } else {
            self.send_chunks::<MAX_FRAGMENTS>(chunks, size, checksum, fill)
        }
    }

    /// Queues a frame of `size` bytes in `chunks` chunks, `MOST` of them at most.
    fn send_chunks<const MOST: usize>(
        &mut self,
        chunks: u32,
        size: u32,
        checksum: Option<ChecksumRequest>,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        let most = self.limits.send_chunk();
        let tx = &mut self.socket.rings.tx;
        let mut slots = tx.reserve(chunks).ok_or(SendError::Full)?;
        let mut held = Held {
            frames: [const { None::<Frame> }; MOST],
            count: chunks as usize,
            pool: &mut self.pool,
        };
        // Only a frame of one chunk is short; the last chunk of several may be.
        let shortest = if chunks == 1 { SHORTEST_SENT } else { 0 };
        let mut left = size;
        for slot in held.frames.iter_mut().take(held.count) {
            let frame = slot.insert(held.pool.take().ok_or(SendError::Full)?);
            let part = left.min(most);
            let room = part.max(shortest) as usize;
            let bytes = self.socket.umem.bytes_mut(frame, room);
            let (bytes, padding) = bytes
                .and_then(|bytes| bytes.split_at_mut_checked(part as usize))
                .ok_or(SendError::TooLong)?;
            fill(bytes);
            // There are bytes of an earlier frame, which are nobody's business.
            if !padding.is_empty() {
                padding.fill(0);
            }
            left = left.saturating_sub(most);
        }
        let mut metadata = 0;
        if let (Some(checksum), Some(Some(first))) = (checksum, held.frames.first_mut()) {
            let room = self.socket.umem.tx_metadata_mut(first);
            *room.ok_or(SendError::NoChecksum)? = checksum.to_bytes();
            metadata = HAS_METADATA;
        }
        let start = u64::from(self.socket.umem.tx_metadata_len());
        let size = size.max(shortest);
        let mut left = size;
        for slot in held.frames.iter_mut().take(held.count) {
            let Some(frame) = slot.take() else { break };
            let continues = if left > most { PACKET_CONTINUES } else { 0 };
            slots.push(Descriptor {
                address: held.pool.lend(frame, Side::Transmit) + start,
                length: left.min(most),
                // Of the first descriptor only.
                options: continues | std::mem::take(&mut metadata),
            });
            left = left.saturating_sub(most);
        }
        slots.commit();
        self.counters.tx_packets += 1;
        self.counters.tx_bytes += u64::from(size);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.socket.rings.tx.publish();
        let pending = self.socket.rings.tx.pending();
        // As many may be lost, and as many calls may go without a sign that they did something:
        // before 6.17 the kernel told late what it had taken from the ring.
        let mut lost = pending;
        let mut blind = pending / TX_BATCH + 2;
        while lost != 0 && blind != 0 {
            if !self.socket.rings.tx.needs_wakeup() || self.socket.rings.tx.pending() == 0 {
                return Ok(());
            }
            match self.kick_tx()? {
                Kick::Progress => {}
                Kick::Lost => lost -= 1,
                Kick::Unclear => blind -= 1,
                // Once more: what was just reaped may have been in the way.
                Kick::Stuck => blind = blind.min(2) - 1,
                Kick::Driver => return Ok(()),
            }
        }
        if self.socket.rings.tx.pending() != 0 {
            self.counters.tx_stalls += 1;
        }
        Ok(())
    }

    pub(super) fn unsent(&self) -> usize {
        self.socket.rings.tx.pending() as usize
    }

    /// Tells the kernel of entries in the tx ring, and finds out what came of it.
    fn kick_tx(&mut self) -> io::Result<Kick> {
        let before = (
            self.socket.rings.tx.pending(),
            self.socket.rings.completion.available(),
        );
        self.counters.tx_wakeups += 1;
        let result = self.socket.rings.kernel.kick_tx();
        let after = (
            self.socket.rings.tx.pending(),
            self.socket.rings.completion.available(),
        );
        let zero_copy = self.socket.zero_copy;
        match result {
            // net/xdp/xsk.c, __xsk_generic_xmit: the frame was completed, but not sent.
            Err(Errno::BUSY) if !zero_copy => {
                self.counters.tx_lost += 1;
                Ok(Kick::Lost)
            }
            Ok(())
            | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::NOMEM | Errno::INTR)
                if zero_copy =>
            {
                // Most drivers send when their receive side is polled. Where transmit is apart, nothing was done.
                if self.busy_poll && after.0 != 0 {
                    self.socket.rings.kernel.wake_driver();
                }
                Ok(Kick::Driver)
            }
            Ok(()) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR)
                if after != before =>
            {
                Ok(Kick::Progress)
            }
            Err(Errno::AGAIN) => Ok(Kick::Unclear),
            Ok(()) | Err(Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => {
                self.reap();
                Ok(Kick::Stuck)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes back the frames that were sent.
    pub(super) fn reap(&mut self) {
        let (umem, pool, in_flight) = (&self.socket.umem, &mut self.pool, &mut self.in_flight);
        let mut sent = self.socket.rings.completion.peek(u32::MAX);
        let all = sent.len();
        for address in (0..all).filter_map(|position| sent.get(position)) {
            let known = if umem.is_shared(address) {
                in_flight.came_back(address, pool)
            } else {
                in_flight.chunk_came_back(address, pool)
            };
            if !known {
                self.counters.invalid_descriptors += 1;
            }
        }
        sent.release(all);
    }
}

/// What came of telling the kernel of entries in the tx ring.
enum Kick {
    /// It took some.
    Progress,
    /// It took some, the last of which is lost.
    Lost,
    /// It may have taken some; there may be more than it takes in one call.
    Unclear,
    /// It took none.
    Stuck,
    /// The driver takes them when it gets to run.
    Driver,
}

/// The chunks of a frame, which go back to the pool unless they are taken out.
struct Held<'q, const MOST: usize> {
    frames: [Option<Frame>; MOST],
    /// Only so many of them are ever there.
    count: usize,
    pool: &'q mut FramePool,
}

impl<const MOST: usize> Drop for Held<'_, MOST> {
    fn drop(&mut self) {
        for slot in self.frames.iter_mut().take(self.count) {
            if let Some(frame) = slot.take() {
                self.pool.put(frame);
            }
        }
    }
}
