//! Frames of many segments that a sender on this host, or a bridge there, left whole: in Linux, TCP is cut no earlier
//! than it must be, and over veth that is never.
//!
//! A program in the stack (skb mode) sees them as they are, with the sum over the pseudo-header for a checksum. AF_XDP does not
//! tell where they would be cut (`gso_size`), so segments count as long as the wire's MTU allows. That is right for TCP,
//! a stream, and nothing for UDP, whose datagrams can't be told from each other any more.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Delivery, Meter, Rx, inspect::Frame};
use crate::virtio::{
    net::offload::{
        segment::{Request, Segmenter},
        verify::sum_of,
    },
    queue::QueueFault,
};

/// Most pieces of one segment: its headers, and its payload in as many fragments.
const MAX_PIECES: usize = 65;

/// The longest IP packet of the wire in bytes: its MTU. Written when the interface's changes, read once a burst.
#[derive(Debug)]
pub(in crate::virtio::net) struct WireMtu(AtomicU32);

impl WireMtu {
    /// `None`: not known, so nothing is too long.
    pub(in crate::virtio::net) fn new(mtu: Option<u16>) -> Self {
        Self(AtomicU32::new(mtu.map_or(u32::MAX, u32::from)))
    }

    pub(in crate::virtio::net) fn set(&self, mtu: u32) {
        self.0.store(mtu, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> usize {
        usize::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
}

/// A frame that is longer than the wire takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uncut {
    /// How it is to be cut.
    Segments(Request),
    /// Nobody knows that.
    Unknown,
}

impl Rx {
    /// Gives the guest the segments of a frame that it does not take whole: all of them, or none.
    pub(super) fn deliver_cut(
        &mut self,
        frame: &Frame<'_>,
        request: Request,
        meter: &mut Meter,
    ) -> Result<Delivery, QueueFault> {
        self.close();
        let Ok(mut segmenter) = Segmenter::new(frame.start(), frame.len, request) else {
            return Ok(self.drop_uncut());
        };
        let before = self.queue.mark();
        let (mut segments, mut bytes, mut buffers) = (0, 0, 0u16);
        while !segmenter.is_done() {
            bytes += segmenter.header_len() + segmenter.payload_len();
            segments += 1;
            match self.deliver_segment(frame, &mut segmenter)? {
                Delivery::Starved(known) => {
                    self.queue.rewind(before);
                    let known = buffers.saturating_add(known);
                    // More than the queue can hold never come.
                    return Ok(if known < self.queue.size() {
                        Delivery::Starved(known)
                    } else {
                        self.drop_uncut()
                    });
                }
                Delivery::Done | Delivery::Limited => {}
            }
            buffers = buffers.saturating_add(self.open.map_or(1, |open| open.buffers));
            self.close();
            segmenter.advance();
        }
        self.counters.rx_uncut.add(1);
        meter.spend_segments(segments, bytes);
        self.counters.rx_frames.add(segments as u64);
        self.counters.rx_bytes.add(bytes as u64);
        Ok(Delivery::Done)
    }

    fn deliver_segment(
        &mut self,
        frame: &Frame<'_>,
        segmenter: &mut Segmenter,
    ) -> Result<Delivery, QueueFault> {
        let start = segmenter.position();
        let end = start + segmenter.payload_len();
        let headers = if self.offloads.partial {
            segmenter.partial_header()
        } else {
            segmenter.header(sum_of(frame.fragments, start, end))
        };
        let mut pieces: [&[u8]; MAX_PIECES] = [&[]; MAX_PIECES];
        let mut count = 0;
        for (slot, piece) in pieces
            .iter_mut()
            .zip([headers].into_iter().chain(frame.range(start, end)))
        {
            *slot = piece;
            count += 1;
        }
        let pieces = pieces.get(..count).unwrap_or_default();
        self.start(&Frame::new(pieces, self.offloads, usize::MAX))
    }

    /// Drops a frame that nobody can cut.
    pub(super) fn drop_uncut(&self) -> Delivery {
        self.counters.rx_uncut_dropped.add(1);
        Delivery::Done
    }
}
