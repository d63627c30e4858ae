//! One queue of an interface: bursts of frames in and out.

use std::{
    io,
    ops::ControlFlow,
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use rustix::io::Errno;

use crate::{
    counters::{Counters, FrameAccounting, Statistics},
    frame::{Frame, FramePool, Side},
    ring::{Burst, Descriptor, Producer},
    socket::Socket,
    umem::{CHUNK_SIZE, RX_HEADROOM},
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

/// One queue of an interface, with its socket, its rings and its frames.
///
/// Owned by one thread at a time; no locks. Dropping it closes the socket: the kernel releases the
/// queue some 50 ms later.
///
/// Half of the frames circulate through the fill and rx rings, the other half through the tx and
/// completion rings, and each ring holds all frames that can be in it: neither direction starves the
/// other, and no ring overflows. The fill ring holds twice as many, since the kernel tells late what
/// it has taken from it: a frame can be on its way back there before its old entry counts as free.
#[derive(Debug)]
pub struct Queue {
    id: u32,
    socket: Socket,
    pool: FramePool,
    counters: Counters,
}

impl Queue {
    /// Takes over a bound socket and arms its receive side.
    pub(crate) fn new(id: u32, socket: Socket, pool: FramePool) -> Self {
        let mut queue = Self {
            id,
            socket,
            pool,
            counters: Counters::default(),
        };
        queue.arm();
        queue.wake_rx();
        queue
    }

    /// Number of the queue on its interface.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Longest frame that [`send`](Self::send) takes, in bytes: Ethernet header included, FCS not.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        CHUNK_SIZE as usize
    }

    /// Longest frame that can be received, in bytes: the kernel keeps the start of a chunk for
    /// itself. It drops longer ones and counts them in [`Statistics::rx_dropped`].
    #[must_use]
    pub fn max_received_frame(&self) -> usize {
        (CHUNK_SIZE - RX_HEADROOM) as usize
    }

    /// Whether the driver reads and writes the frames in place, without a copy in the kernel.
    #[must_use]
    pub fn zero_copy(&self) -> bool {
        self.socket.zero_copy()
    }

    /// What this queue has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Hands up to `budget` received frames, oldest first, each as its fragments in order, to
    /// `take`. Returns how many it took.
    ///
    /// `Break` means: not taken, keep this frame and stop. The memory of all frames taken goes back
    /// to the kernel together, when this returns. If `take` panics, the frame counts as taken.
    pub fn receive(
        &mut self,
        budget: usize,
        mut take: impl FnMut(&[&[u8]]) -> ControlFlow<()>,
    ) -> usize {
        let mut bytes = 0;
        let packets = self.receive_burst(budget, |frame| {
            let flow = take(&[frame]);
            if flow.is_continue() {
                bytes += frame.len() as u64;
            }
            flow
        });
        self.counters.rx_packets += packets as u64;
        self.counters.rx_bytes += bytes;
        packets
    }

    /// Throws away all frames that have been received so far; returns how many.
    pub fn discard(&mut self) -> usize {
        // What arrives meanwhile is left for the next time, so that this ends.
        let budget = self.socket.rx.available() as usize;
        let packets = self.receive_burst(budget, |_| ControlFlow::Continue(()));
        self.counters.rx_discarded += packets as u64;
        packets
    }

    /// How many frames [`send`](Self::send) would take now. Takes back what was sent when less than
    /// half is free.
    pub fn room(&mut self) -> usize {
        if self.pool.free() < self.pool.total() / 4 {
            self.reap();
        }
        let free = self.pool.free();
        self.socket.tx.room(free).min(free) as usize
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
        let mut slot = self.socket.tx.reserve(1).ok_or(SendError::Full)?;
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
    /// and moments of congestion are not errors; they are counted.
    pub fn flush(&mut self) -> io::Result<()> {
        self.socket.tx.publish();
        let pending = self.socket.tx.pending();
        // As many may be lost, and as many calls may go without a sign that they did something:
        // before 6.17 the kernel told late what it had taken from the ring.
        let mut lost = pending;
        let mut blind = pending / TX_BATCH + 2;
        while lost != 0 && blind != 0 {
            if !self.socket.tx.needs_wakeup() || self.socket.tx.pending() == 0 {
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
        if self.socket.tx.pending() != 0 {
            self.counters.tx_stalls += 1;
        }
        Ok(())
    }

    /// The kernel's counters of this socket.
    ///
    /// # Errors
    /// The system's.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let raw = rustix::net::sockopt::xdp_statistics(self.as_fd())?;
        // Those that Linux 5.9 brought are there: it also brought the link that the program needs.
        Ok(Statistics {
            rx_dropped: raw.rx_dropped,
            rx_invalid_descs: raw.rx_invalid_descs,
            tx_invalid_descs: raw.tx_invalid_descs,
            rx_ring_full: raw.rx_ring_full.unwrap_or(0),
            rx_fill_ring_empty_descs: raw.rx_fill_ring_empty_descs.unwrap_or(0),
            tx_ring_empty_descs: raw.tx_ring_empty_descs.unwrap_or(0),
        })
    }

    /// Where the frames are now.
    #[must_use]
    pub fn accounting(&self) -> FrameAccounting {
        let socket = &self.socket;
        let receive = self.pool.lent(Side::Receive);
        let transmit = self.pool.lent(Side::Transmit);
        // What the kernel has handed back is known exactly. What it has taken it may tell late, so
        // that frames it has handed back seem to be in the other ring as well: hence the limits.
        let rx = socket.rx.available();
        let fill = socket.fill.pending() + socket.fill.staged();
        let fill = fill.min(receive.saturating_sub(rx));
        let completion = socket.completion.available();
        let tx = socket.tx.pending() + socket.tx.staged();
        let tx = tx.min(transmit.saturating_sub(completion));
        FrameAccounting {
            total: self.pool.total(),
            free: self.pool.free(),
            fill,
            receiving: receive.saturating_sub(rx + fill),
            rx,
            tx,
            transmitting: transmit.saturating_sub(tx + completion),
            completion,
        }
    }

    fn receive_burst(
        &mut self,
        budget: usize,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> usize {
        let limit = u32::try_from(budget).unwrap_or(u32::MAX);
        let mut reception = Reception {
            burst: self.socket.rx.peek(limit),
            fill: &mut self.socket.fill,
            pool: &mut self.pool,
            invalid: &mut self.counters.invalid_descriptors,
            done: 0,
            held: None,
        };
        if reception.burst.len() == 0 {
            return 0;
        }
        let mut taken = 0;
        while let Some(descriptor) = reception.next() {
            let Some(frame) = &reception.held else { break };
            let length = descriptor.length as usize;
            // Within the chunk, so at most CHUNK_SIZE.
            let offset =
                usize::try_from(descriptor.address - frame.address()).unwrap_or(usize::MAX);
            let Some(bytes) = self.socket.umem.bytes(frame, offset, length) else {
                *reception.invalid += 1;
                reception.recycle();
                continue;
            };
            if take(bytes).is_break() {
                reception.keep();
                break;
            }
            reception.recycle();
            taken += 1;
        }
        drop(reception);
        self.wake_rx();
        taken
    }

    /// Gives the receive side its half of the frames.
    fn arm(&mut self) {
        let wanted = self.pool.total() / 2;
        let Some(mut slots) = self.socket.fill.reserve(wanted) else {
            return;
        };
        for _ in 0..wanted {
            let Some(frame) = self.pool.take() else { break };
            slots.push(self.pool.lend(frame, Side::Receive));
        }
        slots.commit();
        self.socket.fill.publish();
    }

    /// Tells the kernel of new entries in the fill ring, if it asks for that.
    fn wake_rx(&mut self) {
        if self.socket.fill.needs_wakeup() {
            self.counters.rx_wakeups += 1;
            // A link that is down is all that can be wrong; there is nothing to receive then, and
            // the kernel looks at the ring when it comes up.
            let _ = self.socket.kick_rx();
        }
    }

    /// Tells the kernel of entries in the tx ring, and finds out what came of it.
    fn kick_tx(&mut self) -> io::Result<Kick> {
        let before = (self.socket.tx.pending(), self.socket.completion.available());
        self.counters.tx_wakeups += 1;
        let result = self.socket.kick_tx();
        let after = (self.socket.tx.pending(), self.socket.completion.available());
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
        let mut sent = self.socket.completion.peek(u32::MAX);
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

impl AsFd for Queue {
    /// The socket: readable when frames have been received; writable when the tx ring is half empty
    /// (so ask for that only while [`Queue::room`] is 0, edge-triggered).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let accounting = self.accounting();
        tracing::debug!(queue = self.id, ?accounting, counters = ?self.counters, "closing");
        if !accounting.is_balanced() && !thread::panicking() {
            tracing::error!(
                queue = self.id,
                ?accounting,
                "the frames of the queue don't add up"
            );
            debug_assert!(accounting.is_balanced(), "{accounting:?}");
        }
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

/// A burst in the course of being received. When dropped, also by a panic, it takes what was done
/// out of the rx ring and publishes its memory in the fill ring.
struct Reception<'q> {
    burst: Burst<'q, Descriptor>,
    fill: &'q mut Producer<u64>,
    pool: &'q mut FramePool,
    invalid: &'q mut u64,
    done: u32,
    held: Option<Frame>,
}

impl Reception<'_> {
    /// The next descriptor, its frame held.
    fn next(&mut self) -> Option<Descriptor> {
        loop {
            let descriptor = self.burst.get(self.done)?;
            self.held = self.pool.reclaim(descriptor.address, Side::Receive);
            if self.held.is_some() {
                return Some(descriptor);
            }
            *self.invalid += 1;
            self.done += 1;
        }
    }

    /// Back to the kernel's receive side with the frame held.
    fn recycle(&mut self) {
        let Some(frame) = self.held.take() else {
            return;
        };
        self.done += 1;
        match self.fill.reserve(1) {
            Some(mut slot) => {
                slot.push(self.pool.lend(frame, Side::Receive));
                slot.commit();
            }
            // The fill ring holds twice the frames of the receive side, so there is always room.
            None => self.pool.put(frame),
        }
    }

    /// The frame held stays in the rx ring.
    fn keep(&mut self) {
        if let Some(frame) = self.held.take() {
            let _ = self.pool.lend(frame, Side::Receive);
        }
    }
}

impl Drop for Reception<'_> {
    fn drop(&mut self) {
        self.recycle();
        self.burst.release(self.done);
        self.fill.publish();
    }
}
