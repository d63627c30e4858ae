//! The receive side of a queue.

use std::ops::ControlFlow;

use super::Queue;
use crate::{
    frame::{Frame, FramePool, Side},
    ring::{Burst, Descriptor, Producer},
};

impl Queue {
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
        let budget = self.socket.rings.rx.available() as usize;
        let packets = self.receive_burst(budget, |_| ControlFlow::Continue(()));
        self.counters.rx_discarded += packets as u64;
        packets
    }

    fn receive_burst(
        &mut self,
        budget: usize,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> usize {
        let limit = u32::try_from(budget).unwrap_or(u32::MAX);
        let mut reception = Reception {
            burst: self.socket.rings.rx.peek(limit),
            fill: &mut self.socket.rings.fill,
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
    pub(super) fn arm(&mut self) {
        let wanted = self.pool.total() / 2;
        let Some(mut slots) = self.socket.rings.fill.reserve(wanted) else {
            return;
        };
        for _ in 0..wanted {
            let Some(frame) = self.pool.take() else { break };
            slots.push(self.pool.lend(frame, Side::Receive));
        }
        slots.commit();
        self.socket.rings.fill.publish();
    }

    /// Tells the kernel of new entries in the fill ring, if it asks for that.
    pub(super) fn wake_rx(&mut self) {
        if self.socket.rings.fill.needs_wakeup() {
            self.counters.rx_wakeups += 1;
            // A link that is down is all that can be wrong; there is nothing to receive then, and
            // the kernel looks at the ring when it comes up.
            let _ = self.socket.kick_rx();
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
