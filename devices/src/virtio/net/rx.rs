//! Wire to guest: one copy, from the back end's frame to the guest's buffers.

use std::{ops::ControlFlow, sync::Arc};

use super::{
    NetBackend,
    counters::PairCounters,
    rate::Meter,
    wire::{MRG_RXBUF, header_len, rx_header},
};
use crate::virtio::queue::{Chain, LiveQueue, QueueFault, Writer};

/// How a receive burst ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RxOutcome {
    /// The budget was used up: there may be more.
    More,
    /// The back end has nothing more.
    Empty,
    /// The oldest frame waits for more than this many buffers of the guest.
    Starved(u16),
    /// The oldest frame waits for its time to come.
    Limited,
}

/// The receive queue of a pair, with its scratch memory.
#[derive(Debug)]
pub(super) struct Rx {
    pub(super) queue: LiveQueue,
    counters: Arc<PairCounters>,
    first: Chain,
    further: Chain,
    header_len: usize,
    mergeable: bool,
}

/// What became of one frame.
enum Delivery {
    /// The guest got it, or it was dropped and counted.
    Done,
    /// More than this many buffers are needed; nothing happened.
    Starved(u16),
    /// It may not pass yet; nothing happened.
    Limited,
}

impl Rx {
    pub(super) fn new(queue: LiveQueue, features: u64, counters: Arc<PairCounters>) -> Self {
        Self {
            first: queue.new_chain(),
            further: queue.new_chain(),
            queue,
            counters,
            header_len: header_len(features),
            mergeable: features & MRG_RXBUF != 0,
        }
    }

    /// Moves up to `budget` frames to the guest, and no more than `meter` lets pass. Used entries are not yet published.
    pub(super) fn burst<B: NetBackend>(
        &mut self,
        backend: &mut B,
        budget: usize,
        meter: &mut Meter,
    ) -> Result<RxOutcome, QueueFault> {
        let mut end = Ok(RxOutcome::Empty);
        let taken = backend.receive(budget, |frame| {
            end = match self.deliver(frame, meter) {
                Ok(Delivery::Done) => return ControlFlow::Continue(()),
                Ok(Delivery::Starved(known)) => Ok(RxOutcome::Starved(known)),
                Ok(Delivery::Limited) => Ok(RxOutcome::Limited),
                Err(fault) => Err(fault),
            };
            ControlFlow::Break(())
        });
        match end {
            Ok(RxOutcome::Empty) if taken == budget => Ok(RxOutcome::More),
            end => end,
        }
    }

    fn deliver(&mut self, frame: &[&[u8]], meter: &mut Meter) -> Result<Delivery, QueueFault> {
        if meter.is_spent() {
            return Ok(Delivery::Limited);
        }
        let len = frame.iter().map(|fragment| fragment.len()).sum::<usize>();
        let start = self.queue.mark();
        if !self.queue.pop(&mut self.first)? {
            return Ok(Delivery::Starved(0));
        }
        let room = writable(&self.first)?;
        if room < self.header_len {
            // Given back empty, or it would block all frames after this one.
            self.queue.push_used(self.first.head(), 0);
            self.counters.rx_bad_buffer.add(1);
            return Ok(Delivery::Done);
        }
        if !self.mergeable && room - self.header_len < len {
            self.queue.rewind(start);
            self.counters.rx_too_long.add(1);
            return Ok(Delivery::Done);
        }

        let mut source = Source { frame, offset: 0 };
        let mut writer = self.first.writer();
        writer.skip(self.header_len);
        let copied = source.copy(&mut writer);
        let mut left = len - copied;
        self.queue
            .push_used(self.first.head(), entry_len(self.header_len + copied));
        let mut buffers = 1;
        while left > 0 {
            if buffers == self.queue.size() {
                // Not even all buffers that the queue can hold are enough.
                self.queue.rewind(start);
                self.counters.rx_too_long.add(1);
                return Ok(Delivery::Done);
            }
            if !self.queue.pop(&mut self.further)? {
                // What was written is invisible: no used entry will tell of it (5.1.6.4.1).
                self.queue.rewind(start);
                return Ok(Delivery::Starved(buffers));
            }
            writable(&self.further)?;
            let copied = source.copy(&mut self.further.writer());
            self.queue.push_used(self.further.head(), entry_len(copied));
            left -= copied;
            buffers += 1;
        }
        let header = rx_header(buffers);
        let (header, _) = header.split_at(self.header_len);
        self.first.writer().write(header);
        meter.spend(len);
        self.counters.rx_frames.add(1);
        self.counters.rx_bytes.add(len as u64);
        Ok(Delivery::Done)
    }
}

/// The room in a receive buffer, which must be for the device to write only (5.1.6.3.1).
fn writable(chain: &Chain) -> Result<usize, QueueFault> {
    if chain.readable_len() > 0 {
        return Err(QueueFault::Direction(chain.head()));
    }
    Ok(chain.writable_len() as usize)
}

fn entry_len(len: usize) -> u32 {
    // Bounded by the chain's length, which is a u32.
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A frame's bytes from some point on.
struct Source<'a> {
    frame: &'a [&'a [u8]],
    /// Bytes of the first fragment that were copied.
    offset: usize,
}

impl Source<'_> {
    /// Copies as much as fits; returns how much.
    fn copy(&mut self, writer: &mut Writer<'_>) -> usize {
        let mut done = 0;
        while let [fragment, rest @ ..] = self.frame {
            let (_, bytes) = fragment.split_at(self.offset);
            let copied = writer.write(bytes);
            done += copied;
            if copied < bytes.len() {
                self.offset += copied;
                break;
            }
            self.frame = rest;
            self.offset = 0;
        }
        done
    }
}
