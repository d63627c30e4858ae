//! The receive side of a queue.

use std::{io, ops::ControlFlow, os::fd::AsFd, time::Duration};

use super::{Path, Queue};
use crate::{
    frame::{Frame, FramePool, Side},
    multi_buffer::{MAX_FRAGMENTS, PACKET_CONTINUES},
    ring::{Burst, Descriptor, Producer},
    socket::Kernel,
    sys,
    umem::Umem,
};

/// Most frames that one system call takes from the card: a NAPI's weight, more needs privileges.
const BUSY_POLL_BUDGET: u32 = 64;

impl Queue {
    /// Hands up to `budget` received frames, oldest first, each as its fragments in order, to
    /// `take`. Returns how many it took.
    ///
    /// A frame has one fragment, or up to 18 if it is longer than a chunk holds; a longer one is
    /// dropped and counted. `Break` means: not taken, keep this frame and stop. The memory of all
    /// frames taken goes back to the kernel together, when this returns. If `take` panics, the frame
    /// counts as taken.
    pub fn receive(
        &mut self,
        budget: usize,
        take: impl FnMut(&[&[u8]]) -> ControlFlow<()>,
    ) -> usize {
        self.path.receive(budget, take)
    }

    /// Has the kernel poll the card's queue in [`receive`](Self::receive), when that finds nothing
    /// (`SO_PREFER_BUSY_POLL`; kernel document `af_xdp`, "busy polling"), for up to `time` each. For a
    /// caller that calls it all the time on a queue of its own: the card's interrupts and the softirq then
    /// don't take turns with it. It needs CAP_NET_ADMIN, and the card's interrupts to be put off by
    /// `napi_defer_hard_irqs` and `gro_flush_timeout` in `/sys/class/net/INTERFACE`.
    ///
    /// # Errors
    /// The system's; reception stays as it was then.
    pub fn set_busy_poll(&mut self, time: Duration) -> io::Result<()> {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        sys::set_busy_poll(self.as_fd(), micros, BUSY_POLL_BUDGET)?;
        self.path.busy_poll = true;
        Ok(())
    }

    /// Throws away all frames that have been received so far; returns how many.
    pub fn discard(&mut self) -> usize {
        self.path.discard()
    }
}

impl<K: Kernel> Path<K> {
    pub(super) fn receive(
        &mut self,
        budget: usize,
        mut take: impl FnMut(&[&[u8]]) -> ControlFlow<()>,
    ) -> usize {
        let mut bytes = 0;
        let packets = self.receive_burst(budget, |fragments| {
            let flow = take(fragments);
            if flow.is_continue() {
                bytes += fragments.iter().map(|it| it.len() as u64).sum::<u64>();
            }
            flow
        });
        self.counters.rx_packets += packets as u64;
        self.counters.rx_bytes += bytes;
        packets
    }

    pub(super) fn discard(&mut self) -> usize {
        // What arrives meanwhile is left for the next time, so that this ends.
        let budget = self.socket.rings.rx.available() as usize;
        let packets = self.receive_burst(budget, |_| ControlFlow::Continue(()));
        self.counters.rx_discarded += packets as u64;
        packets
    }

    fn receive_burst(
        &mut self,
        budget: usize,
        mut take: impl FnMut(&[&[u8]]) -> ControlFlow<()>,
    ) -> usize {
        // A frame may have any number of descriptors; the ring bounds how many are looked at.
        let limit = if self.limits.are_several_chunks() {
            u32::MAX
        } else {
            u32::try_from(budget).unwrap_or(u32::MAX)
        };
        if self.busy_poll && self.socket.rings.rx.available() == 0 {
            // The call itself polls the card. That there is nothing, or no link, is no news.
            let _ = self.socket.rings.kernel.kick_rx();
        }
        let burst = self.socket.rings.rx.peek(limit);
        if burst.len() == 0 || budget == 0 {
            return 0;
        }
        let mut reception = Reception {
            burst,
            fill: &mut self.socket.rings.fill,
            umem: &self.socket.umem,
            pool: &mut self.pool,
            dropping: &mut self.dropping,
            invalid: &mut self.counters.invalid_descriptors,
            too_long: &mut self.counters.rx_too_long,
            done: 0,
            held: [const { None }; MAX_FRAGMENTS],
            count: 0,
        };
        let mut taken = 0;
        while taken < budget && reception.hold_next() {
            if reception.show(&mut take).is_break() {
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
            let _ = self.socket.rings.kernel.kick_rx();
        }
    }
}

/// How many frames ahead their first bytes are fetched into the cache: another CPU may have written them,
/// and the copy of one frame is about as long as such a fetch takes.
const AHEAD: u32 = 4;

/// One chunk of a received frame, and where in it the bytes are.
struct Fragment {
    frame: Frame,
    offset: usize,
    length: usize,
}

/// A burst in the course of being received. When dropped, also by a panic, it takes what was done
/// out of the rx ring and publishes its memory in the fill ring.
struct Reception<'q> {
    burst: Burst<'q, Descriptor>,
    fill: &'q mut Producer<u64>,
    umem: &'q Umem,
    pool: &'q mut FramePool,
    dropping: &'q mut bool,
    invalid: &'q mut u64,
    too_long: &'q mut u64,
    /// Descriptors that are taken.
    done: u32,
    /// The fragments of the frame after those; its first `count` are there.
    held: [Option<Fragment>; MAX_FRAGMENTS],
    count: usize,
}

/// What the descriptors from some point on are.
enum Next {
    /// A frame of that many.
    Whole(u32),
    /// None, or the beginning of a frame whose end is not there yet.
    Incomplete,
    /// The beginning of a frame of more than [`MAX_FRAGMENTS`].
    TooLong,
}

impl Reception<'_> {
    /// Holds the next frame that is whole, and drops those that can't be shown. False: there is
    /// none.
    fn hold_next(&mut self) -> bool {
        loop {
            if *self.dropping {
                let Some(descriptor) = self.burst.get(self.done) else {
                    return false;
                };
                *self.dropping = continues(&descriptor);
                self.hold(1);
                self.recycle();
                continue;
            }
            match self.next() {
                Next::Whole(count) if self.hold(count) => return true,
                Next::Whole(_) => self.recycle(),
                Next::Incomplete => return false,
                Next::TooLong => {
                    *self.too_long += 1;
                    *self.dropping = true;
                }
            }
        }
    }

    fn next(&self) -> Next {
        let mut count = 0;
        while let Some(descriptor) = self.burst.get(self.done + count) {
            count += 1;
            if !continues(&descriptor) {
                return Next::Whole(count);
            }
            if count as usize == MAX_FRAGMENTS {
                return Next::TooLong;
            }
        }
        Next::Incomplete
    }

    /// Holds the memory of the next `count` descriptors and takes them. False: one of them is not
    /// valid, and counted.
    fn hold(&mut self, count: u32) -> bool {
        let mut valid = true;
        for _ in 0..count {
            if let Some(soon) = self.burst.get(self.done + AHEAD) {
                self.umem.prefetch(soon.address);
            }
            let fragment = self.burst.get(self.done).and_then(|it| self.fragment(&it));
            self.done += 1;
            match (fragment, self.held.get_mut(self.count)) {
                (Some(fragment), Some(slot)) => {
                    *slot = Some(fragment);
                    self.count += 1;
                }
                _ => {
                    *self.invalid += 1;
                    valid = false;
                }
            }
        }
        valid
    }

    fn fragment(&mut self, descriptor: &Descriptor) -> Option<Fragment> {
        let frame = self.pool.reclaim(descriptor.address, Side::Receive)?;
        // Within the chunk, so at most CHUNK_SIZE.
        let offset = usize::try_from(descriptor.address - frame.address()).unwrap_or(usize::MAX);
        let length = descriptor.length as usize;
        if self.umem.bytes(&frame, offset, length).is_none() {
            lend(self.fill, self.pool, frame);
            return None;
        }
        Some(Fragment {
            frame,
            offset,
            length,
        })
    }

    /// Shows the frame held.
    fn show(&self, take: &mut impl FnMut(&[&[u8]]) -> ControlFlow<()>) -> ControlFlow<()> {
        let held = self.held.get(..self.count).unwrap_or_default();
        // Nearly all frames have one, so no room is made for more.
        if let [Some(fragment)] = held {
            return take(&[self.bytes(fragment)]);
        }
        let mut all: [&[u8]; MAX_FRAGMENTS] = [&[]; MAX_FRAGMENTS];
        for (slot, fragment) in all.iter_mut().zip(held.iter().flatten()) {
            *slot = self.bytes(fragment);
        }
        take(all.get(..held.len()).unwrap_or_default())
    }

    fn bytes<'a>(&'a self, fragment: &'a Fragment) -> &'a [u8] {
        let Fragment {
            frame,
            offset,
            length,
        } = fragment;
        // It was found to be there by `fragment`.
        self.umem.bytes(frame, *offset, *length).unwrap_or_default()
    }

    /// Back to the kernel's receive side with what is held.
    fn recycle(&mut self) {
        for fragment in self.held.iter_mut().take(self.count) {
            if let Some(fragment) = fragment.take() {
                lend(self.fill, self.pool, fragment.frame);
            }
        }
        self.count = 0;
    }

    /// What is held stays in the rx ring.
    fn keep(&mut self) {
        for fragment in self.held.iter_mut().take(self.count) {
            if let Some(fragment) = fragment.take() {
                let _ = self.pool.lend(fragment.frame, Side::Receive);
                self.done -= 1;
            }
        }
        self.count = 0;
    }
}

impl Drop for Reception<'_> {
    fn drop(&mut self) {
        self.recycle();
        self.burst.release(self.done);
        self.fill.publish();
    }
}

fn continues(descriptor: &Descriptor) -> bool {
    descriptor.options & PACKET_CONTINUES != 0
}

/// Lends a frame to the kernel to receive into.
fn lend(fill: &mut Producer<u64>, pool: &mut FramePool, frame: Frame) {
    match fill.reserve(1) {
        Some(mut slot) => {
            slot.push(pool.lend(frame, Side::Receive));
            slot.commit();
        }
        // The fill ring holds twice the frames of the receive side, so there is always room.
        None => pool.put(frame),
    }
}
