//! Wire to guest: one copy, from the back end's frame to the guest's buffers.
//!
//! Segments that follow each other in a burst become one frame while they are copied: the first one's buffers stay
//! open until a frame comes that does not belong to it, or the burst ends. Its used entries are pushed
//! when it is closed, so the order of frames is never changed.

mod inspect;
mod source;
mod uncut;

use std::{ops::ControlFlow, sync::Arc};

use super::{
    NetBackend,
    counters::PairCounters,
    filter::FilterReader,
    offload::coalesce::{Coalescer, Step},
    offloads::{GuestOffloads, ReceiveOffloads},
    rate::Meter,
    wire::{MRG_RXBUF, RxHeader, header_len},
};
use crate::virtio::queue::{Chain, LiveQueue, QueueFault};
use inspect::Frame;
use source::Source;
use uncut::Uncut;
pub(super) use uncut::WireMtu;

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
    guest_offloads: Arc<GuestOffloads>,
    /// Those of this burst.
    offloads: ReceiveOffloads,
    filter: FilterReader,
    wire_mtu: Arc<WireMtu>,
    /// The same of this burst.
    mtu: usize,
    /// The first buffer of the open frame.
    first: Chain,
    /// Its last one, if there are several.
    further: Chain,
    open: Option<Open>,
    /// The segments of the open frame, if more may follow.
    coalescer: Option<Coalescer>,
    header_len: usize,
    mergeable: bool,
}

/// A frame that is in the guest's buffers, of which the guest can't know yet: the header is not written, and
/// the last buffer has no used entry.
#[derive(Debug, Clone, Copy)]
struct Open {
    header: RxHeader,
    buffers: u16,
    /// Head of the last buffer.
    last: u16,
    /// Bytes in it, with the header if it is the only one.
    filled: usize,
    /// Bytes of the frame so far.
    len: usize,
}

/// What became of one frame.
enum Delivery {
    /// The guest gets it, or it was dropped and counted.
    Done,
    /// More than this many buffers are needed; nothing happened.
    Starved(u16),
    /// It may not pass yet; nothing happened.
    Limited,
}

/// What became of bytes that were to be put behind those of an open frame.
enum Spread {
    Done(Open),
    /// More than this many buffers are needed.
    Starved(u16),
    /// Not even all buffers that the queue can hold are enough.
    TooLong,
}

impl Rx {
    pub(super) fn new(
        queue: LiveQueue,
        features: u64,
        counters: Arc<PairCounters>,
        guest_offloads: Arc<GuestOffloads>,
        filter: FilterReader,
        wire_mtu: Arc<WireMtu>,
    ) -> Self {
        Self {
            filter,
            mtu: wire_mtu.get(),
            wire_mtu,
            first: queue.new_chain(),
            further: queue.new_chain(),
            queue,
            counters,
            offloads: guest_offloads.get(),
            guest_offloads,
            open: None,
            coalescer: None,
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
        self.offloads = self.guest_offloads.get();
        self.mtu = self.wire_mtu.get();
        let mut end = Ok(RxOutcome::Empty);
        let taken = backend.receive(budget, |fragments| {
            if !self.filter.accepts(fragments) {
                self.counters.rx_filtered.add(1);
                return ControlFlow::Continue(());
            }
            end = match self.deliver(fragments, meter) {
                Ok(Delivery::Done) => return ControlFlow::Continue(()),
                Ok(Delivery::Starved(known)) => Ok(RxOutcome::Starved(known)),
                Ok(Delivery::Limited) => Ok(RxOutcome::Limited),
                Err(fault) => Err(fault),
            };
            ControlFlow::Break(())
        });
        self.close();
        match end {
            Ok(RxOutcome::Empty) if taken == budget => Ok(RxOutcome::More),
            end => end,
        }
    }

    fn deliver(&mut self, fragments: &[&[u8]], meter: &mut Meter) -> Result<Delivery, QueueFault> {
        if meter.is_spent() {
            return Ok(Delivery::Limited);
        }
        let frame = Frame::new(fragments, self.offloads, self.mtu);
        match frame.uncut() {
            Some(Uncut::Segments(request)) if !frame.is_allowed(self.offloads) => {
                return self.deliver_cut(&frame, request, meter);
            }
            Some(Uncut::Unknown) => return Ok(self.drop_uncut()),
            _ => {}
        }
        let appended = match self.next_step(&frame) {
            Some(step) => self.append(&frame, step)?,
            None => false,
        };
        if !appended {
            self.close();
            match self.start(&frame)? {
                Delivery::Done if self.open.is_some() => {}
                dropped_or_kept => return Ok(dropped_or_kept),
            }
        }
        if frame.uncut().is_some() {
            self.counters.rx_uncut.add(1);
        }
        meter.spend_segments(frame.segments(), frame.len);
        self.counters.rx_frames.add(1);
        self.counters.rx_bytes.add(frame.len as u64);
        Ok(Delivery::Done)
    }

    /// How the frame goes on with the open one, if it does.
    fn next_step(&self, frame: &Frame<'_>) -> Option<Step> {
        let coalescer = self.coalescer.as_ref()?;
        coalescer.fits(frame.start(), frame.trusted()?, frame.len)
    }

    /// Puts the payload behind that of the open frame; false, and nothing happened, if there is no room.
    fn append(&mut self, frame: &Frame<'_>, step: Step) -> Result<bool, QueueFault> {
        let (Some(open), Some(coalescer)) = (self.open, &self.coalescer) else {
            return Ok(false);
        };
        let header_len = coalescer.header_len();
        let mut source = Source::new(frame.fragments);
        source.skip(header_len);
        let before = self.queue.mark();
        let payload = frame.len - header_len;
        let spread = self.spread(source, payload, open);
        if let Ok(Spread::Done(open)) = spread
            && let Some(coalescer) = &mut self.coalescer
        {
            coalescer.add(step);
            let len = open.len + payload;
            self.open = Some(Open { len, ..open });
            self.counters.rx_coalesced.add(1);
            self.counters.rx_coalesced_headers.add(header_len as u64);
            return Ok(true);
        }
        self.queue.rewind(before);
        spread.map(|_| false)
    }

    /// Puts the frame into buffers of its own, and leaves it open; or drops and counts it.
    fn start(&mut self, frame: &Frame<'_>) -> Result<Delivery, QueueFault> {
        let before = self.queue.mark();
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
        let (header, patches) = frame.header(self.offloads);
        let mut source = Source::new(frame.fragments);
        if patches[0].is_some() {
            source = source.with(patches);
            self.counters.rx_checksums.add(1);
        }
        let open = Open {
            header,
            buffers: 1,
            last: self.first.head(),
            filled: self.header_len,
            len: frame.len,
        };
        let spread = self.spread(source, frame.len, open);
        if let Ok(Spread::Done(open)) = spread {
            self.open = Some(open);
            self.expect_more(frame, room);
            return Ok(Delivery::Done);
        }
        // What was written is invisible: no used entry will tell of it (5.1.6.4.1).
        self.queue.rewind(before);
        match spread? {
            Spread::Starved(known) => Ok(Delivery::Starved(known)),
            Spread::Done(_) | Spread::TooLong => {
                self.counters.rx_too_long.add(1);
                Ok(Delivery::Done)
            }
        }
    }

    /// Lets segments follow, if the guest takes that and the first buffer of `room` bytes has all headers.
    fn expect_more(&mut self, frame: &Frame<'_>, room: usize) {
        self.coalescer = frame.trusted().and_then(|packet| {
            let (start, len) = (frame.start(), frame.len);
            let first = Coalescer::begin(start, packet, len, self.offloads.coalesce)?;
            (self.header_len + first.header_len() <= room).then_some(first)
        });
    }

    /// Puts `left` bytes behind those of `open`, into further buffers if need be. Of all but the last there are used
    /// entries then; unless it is done, rewind.
    fn spread(
        &mut self,
        mut source: Source<'_>,
        mut left: usize,
        mut open: Open,
    ) -> Result<Spread, QueueFault> {
        loop {
            let buffer = if open.buffers == 1 {
                &self.first
            } else {
                &self.further
            };
            let mut writer = buffer.writer();
            writer.skip(open.filled);
            let copied = source.copy(&mut writer);
            open.filled += copied;
            left -= copied;
            if left == 0 {
                return Ok(Spread::Done(open));
            }
            if !self.mergeable || open.buffers == self.queue.size() {
                return Ok(Spread::TooLong);
            }
            self.queue.push_used(open.last, entry_len(open.filled));
            if !self.queue.pop(&mut self.further)? {
                return Ok(Spread::Starved(open.buffers));
            }
            writable(&self.further)?;
            open.buffers += 1;
            open.last = self.further.head();
            open.filled = 0;
        }
    }

    /// Ends the open frame, if there is one: its header and its last used entry.
    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        let mut header = open.header;
        let coalescer = self.coalescer.take();
        if let Some(mut coalescer) = coalescer.filter(|it| it.segments() > 1) {
            let whole = coalescer.finish();
            self.counters.rx_merged.add(1);
            self.counters.rx_merged_bytes.add(open.len as u64);
            header = RxHeader::coalesced(&whole);
            let mut writer = self.first.writer();
            writer.skip(self.header_len);
            writer.write(whole.headers);
        }
        let bytes = header.to_bytes(open.buffers);
        let (bytes, _) = bytes.split_at(self.header_len);
        self.first.writer().write(bytes);
        self.queue.push_used(open.last, entry_len(open.filled));
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
