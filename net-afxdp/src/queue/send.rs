//! The transmit side of a queue.

use std::io;

use rustix::io::Errno;

use super::Queue;
use crate::{
    frame::{Frame, FramePool, Side},
    ring::Descriptor,
    umem::CHUNK_SIZE,
};

/// Fewest bytes of a frame that are sent: an Ethernet header. The kernel would read beyond the
/// end of a shorter one.
const MIN_FRAME: usize = 14;

/// Frames that the kernel takes in one call in copy mode (`TX_BATCH_SIZE`, net/xdp/xsk.c); since Linux
/// 6.17 it can be told otherwise.
const TX_BATCH: u32 = 32;

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Longer than [`Queue::max_frame`].
    #[error("the frame is longer than a chunk of frame memory (4096 bytes)")]
    TooLong,
    /// Shorter than an Ethernet header.
    #[error("the frame is shorter than an Ethernet header (14 bytes)")]
    TooShort,
    /// Nothing is free now; retry when the queue is writable.
    #[error("no frame memory or ring slot is free now")]
    Full,
}

impl Queue {
    /// How many frames [`send`](Self::send) would take now. Takes back what was sent when less than
    /// half is free.
    pub fn room(&mut self) -> usize {
        if self.pool.free() < self.pool.total() / 4 {
            self.reap();
        }
        let free = self.pool.free();
        self.socket.rings.tx.room(free).min(free) as usize
    }

    /// Queues one frame of `length` bytes. `fill` is called for each of its fragments in order, and
    /// must write all of the slice that it gets, which holds bytes of earlier frames. Nothing reaches
    /// the kernel before [`flush`](Self::flush); if `fill` panics, nothing is queued.
    ///
    /// # Errors
    /// `TooLong` and `TooShort` concern this frame alone; `Full`: retry when the queue is writable.
    pub fn send(
        &mut self,
        length: usize,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        if length < MIN_FRAME {
            return Err(SendError::TooShort);
        }
        // Up to a chunk, so it fits.
        let size = u32::try_from(length).map_err(|_| SendError::TooLong)?;
        if size > CHUNK_SIZE {
            return Err(SendError::TooLong);
        }
        if self.pool.free() == 0 {
            self.reap();
        }
        let mut slot = self.socket.rings.tx.reserve(1).ok_or(SendError::Full)?;
        let frame = self.pool.take().ok_or(SendError::Full)?;
        let mut held = Held {
            frame: Some(frame),
            pool: &mut self.pool,
        };
        let bytes = held
            .frame
            .as_mut()
            .and_then(|frame| self.socket.umem.bytes_mut(frame, length));
        fill(bytes.ok_or(SendError::TooLong)?);
        let Some(frame) = held.frame.take() else {
            return Err(SendError::Full);
        };
        let address = held.pool.lend(frame, Side::Transmit);
        slot.push(Descriptor {
            address,
            length: size,
            options: 0,
        });
        slot.commit();
        self.counters.tx_packets += 1;
        self.counters.tx_bytes += u64::from(size);
        Ok(())
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

    /// How many flushed frames the kernel has not taken yet. In copy mode nothing announces the end of
    /// a congestion in the driver: while this is not 0, call [`flush`](Self::flush) again within a
    /// millisecond or so, even if there is nothing new to send.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.socket.rings.tx.pending() as usize
    }

    /// Tells the kernel of entries in the tx ring, and finds out what came of it.
    fn kick_tx(&mut self) -> io::Result<Kick> {
        let before = (
            self.socket.rings.tx.pending(),
            self.socket.rings.completion.available(),
        );
        self.counters.tx_wakeups += 1;
        let result = self.socket.kick_tx();
        let after = (
            self.socket.rings.tx.pending(),
            self.socket.rings.completion.available(),
        );
        let zero_copy = self.socket.zero_copy();
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
    fn reap(&mut self) {
        let mut sent = self.socket.rings.completion.peek(u32::MAX);
        for position in 0..sent.len() {
            let frame = sent
                .get(position)
                .and_then(|address| self.pool.reclaim(address, Side::Transmit));
            match frame {
                Some(frame) => self.pool.put(frame),
                None => self.counters.invalid_descriptors += 1,
            }
        }
        let all = sent.len();
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

/// A frame that goes back to the pool unless it is taken out.
struct Held<'q> {
    frame: Option<Frame>,
    pool: &'q mut FramePool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            self.pool.put(frame);
        }
    }
}
