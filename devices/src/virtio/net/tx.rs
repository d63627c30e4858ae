//! Guest to wire: one copy, from the guest's buffers to the back end's frame.
//!
//! A frame of many segments is cut while it is copied. It may take several bursts: its chain is kept, and
//! goes back to the driver with its last segment.

mod emit;

use std::sync::Arc;

use super::{
    NetBackend,
    backend::{ChecksumRequest, SendError},
    carrier::Carrier,
    counters::PairCounters,
    in_place,
    offload::{
        MAX_HEADERS,
        segment::{Request, SegmentError, Segmenter},
    },
    rate::Meter,
    wire::{TxHeader, TxWork, header_len},
};
use crate::virtio::queue::{Chain, LiveQueue, QueueFault, Reader};
use emit::Place;

/// How a transmit burst ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TxOutcome {
    /// The budget was used up: there may be more.
    More,
    /// The guest has nothing more.
    Empty,
    /// The guest has more, the back end has no room.
    Blocked,
    /// The guest has more, and may not send it yet.
    Limited,
}

/// The transmit queue of a pair, with its scratch memory.
#[derive(Debug)]
pub(super) struct Tx {
    pub(super) queue: LiveQueue,
    counters: Arc<PairCounters>,
    chain: Chain,
    /// How far the frame in `chain` is cut. None: the chain is done with.
    cutting: Option<Segmenter>,
    /// The checksums of its segments are left to the back end.
    offloaded: Option<ChecksumRequest>,
    features: u64,
    /// The frame in `chain` was sent where it lies: the driver does not have it back yet.
    stays: bool,
    header_len: usize,
}

impl Tx {
    pub(super) fn new(queue: LiveQueue, features: u64, counters: Arc<PairCounters>) -> Self {
        Self {
            chain: queue.new_chain(),
            cutting: None,
            offloaded: None,
            stays: false,
            queue,
            counters,
            features,
            header_len: header_len(features),
        }
    }

    /// Moves up to `budget` frames to the back end, and no more than `meter` lets pass. Neither flushed nor published yet.
    pub(super) fn burst<B: NetBackend>(
        &mut self,
        carrier: &mut Carrier<B>,
        budget: usize,
        meter: &mut Meter,
    ) -> Result<TxOutcome, QueueFault> {
        if !self.has_more()? {
            return Ok(TxOutcome::Empty);
        }
        let mut room = carrier.backend.room();
        let mut left = budget;
        // Chains that are dropped need no room, but they count: the guest can't hold us here.
        while left > 0 {
            if room == 0 {
                return Ok(TxOutcome::Blocked);
            }
            if meter.is_spent() {
                return Ok(if self.has_more()? {
                    TxOutcome::Limited
                } else {
                    TxOutcome::Empty
                });
            }
            let before = self.queue.mark();
            if self.cutting.is_none() {
                if !self.queue.pop(&mut self.chain)? {
                    return Ok(TxOutcome::Empty);
                }
                if self.chain.writable_len() > 0 {
                    return Err(QueueFault::Direction(self.chain.head()));
                }
            }
            let sent = self.send(&mut carrier.backend, left.min(room), meter);
            let count = *sent.as_ref().unwrap_or(&0);
            room -= count;
            left -= count.max(1);
            carrier.unflushed |= count > 0;
            match sent {
                Err(SendError::Full) => {
                    if self.cutting.is_none() {
                        self.queue.rewind(before);
                    }
                    return Ok(TxOutcome::Blocked);
                }
                Ok(_) => {}
                // `send` has copied it, or completed the checksum, then.
                Err(SendError::NotInPlace | SendError::NoChecksum) => {}
                Err(SendError::TooLong) => self.counters.tx_too_long.add(1),
                Err(SendError::TooShort) => self.counters.tx_too_short.add(1),
            }
            // The bytes are copied, so the guest has its buffers back already (5.1.6.2).
            if self.cutting.is_none() && !std::mem::take(&mut self.stays) {
                self.queue.push_used(self.chain.head(), 0);
            }
        }
        Ok(TxOutcome::More)
    }

    /// Whether a frame is half sent, or another one waits.
    fn has_more(&mut self) -> Result<bool, QueueFault> {
        Ok(self.cutting.is_some() || self.queue.available()? > 0)
    }

    /// Gives back what waits, at most a ring of it, unsent and counted. Not published yet.
    pub(super) fn throw_away(&mut self) -> Result<(), QueueFault> {
        if self.cutting.take().is_some() {
            self.queue.push_used(self.chain.head(), 0);
            self.counters.tx_inactive.add(1);
        }
        for _ in 0..self.queue.size() {
            if !self.queue.pop(&mut self.chain)? {
                break;
            }
            self.queue.push_used(self.chain.head(), 0);
            self.counters.tx_inactive.add(1);
        }
        Ok(())
    }

    /// Hands the chain's frame, or up to `most` segments of it, to the back end. Returns how many it took: none
    /// if the frame was dropped for its header. Segments are left while `cutting` is there.
    fn send<B: NetBackend>(
        &mut self,
        backend: &mut B,
        most: usize,
        meter: &mut Meter,
    ) -> Result<usize, SendError> {
        if self.cutting.is_some() {
            return self.send_segments(backend, most, meter);
        }
        let mut reader = self.chain.reader();
        let Some(len) = reader.remaining().checked_sub(self.header_len) else {
            return Err(SendError::TooShort);
        };
        let header = reader.read_array().map(TxHeader::new);
        reader.skip(self.header_len - TxHeader::LEN);
        let work = header.and_then(|header| header.work(self.features));
        match work {
            Some(TxWork::Nothing) => {
                if in_place::send(backend, reader.clone(), len, self.chain.head())? {
                    self.stays = true;
                    self.counters.tx_in_place.add(1);
                } else {
                    emit::plain(backend, reader, len)?;
                }
            }
            Some(TxWork::Checksum { start, offset }) => {
                let Some(place) = Place::new(start, offset, len) else {
                    return Ok(self.refuse());
                };
                if emit::without_checksum(backend, reader.clone(), len, place)? {
                    self.counters.tx_checksums_offloaded.add(1);
                } else {
                    emit::with_checksum(backend, reader, len, place)?;
                    self.counters.tx_checksums.add(1);
                }
                self.counters.tx_partial.add(1);
            }
            Some(TxWork::Segments(request)) => {
                match cut(&reader, len, request) {
                    Ok(cutting) if cutting.longest() > backend.max_frame() => {
                        return Err(SendError::TooLong);
                    }
                    Ok(cutting) => {
                        let offloads = backend.completes_checksums();
                        self.offloaded = cutting.checksum_request().filter(|_| offloads);
                        self.cutting = Some(cutting);
                    }
                    Err(SegmentError::TooLong) => return Err(SendError::TooLong),
                    Err(_) => return Ok(self.refuse()),
                }
                self.counters.tx_segmented.add(1);
                self.counters.tx_segmented_bytes.add(len as u64);
                return self.send_segments(backend, most, meter);
            }
            None => return Ok(self.refuse()),
        }
        self.sent(len, meter);
        Ok(1)
    }

    /// The frame asks for what it can't have.
    fn refuse(&self) -> usize {
        self.counters.tx_bad_offload.add(1);
        0
    }

    fn sent(&self, len: usize, meter: &mut Meter) {
        meter.spend(len);
        self.counters.tx_frames.add(1);
        self.counters.tx_bytes.add(len as u64);
    }

    /// The next segments of the frame, as many as may pass.
    fn send_segments<B: NetBackend>(
        &mut self,
        backend: &mut B,
        most: usize,
        meter: &mut Meter,
    ) -> Result<usize, SendError> {
        // Not taken out and put back: it is large.
        let Some(cutting) = &mut self.cutting else {
            return Ok(0);
        };
        let mut reader = self.chain.reader();
        reader.skip(self.header_len + cutting.position());
        let mut count = 0;
        while count < most && !cutting.is_done() && !meter.is_spent() {
            let sent = match self.offloaded {
                Some(request) => emit::partial_segment(backend, cutting, &mut reader, request),
                None => emit::segment(backend, cutting, &mut reader),
            };
            let len = match sent {
                Ok(len) => len,
                Err(SendError::Full) if count > 0 => return Ok(count),
                Err(SendError::Full) => return Err(SendError::Full),
                Err(SendError::NoChecksum) if self.offloaded.is_some() => {
                    self.offloaded = None;
                    continue;
                }
                Err(error) => {
                    self.cutting = None;
                    return Err(error);
                }
            };
            meter.spend(len);
            self.counters.tx_frames.add(1);
            self.counters.tx_bytes.add(len as u64);
            if self.offloaded.is_some() {
                self.counters.tx_checksums_offloaded.add(1);
            }
            self.counters.tx_segments.add(1);
            self.counters.tx_segments_bytes.add(len as u64);
            count += 1;
        }
        if cutting.is_done() {
            self.cutting = None;
        }
        Ok(count)
    }
}

/// Finds out how the frame of `len` bytes at `reader` is to be cut. The headers are read once, here.
fn cut(reader: &Reader<'_>, len: usize, request: Request) -> Result<Segmenter, SegmentError> {
    let mut headers = [0; MAX_HEADERS];
    let read = reader.clone().read(&mut headers);
    let (headers, _) = headers.split_at(read.min(len));
    Segmenter::new(headers, len, request)
}
