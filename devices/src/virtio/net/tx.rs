//! Guest to wire: one copy, from the guest's buffers to the back end's frame.

use std::sync::Arc;

use super::{
    NetBackend,
    backend::SendError,
    carrier::Carrier,
    counters::PairCounters,
    rate::Meter,
    wire::{TxHeader, header_len},
};
use crate::virtio::queue::{Chain, LiveQueue, QueueFault, Reader};

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
    header_len: usize,
}

impl Tx {
    pub(super) fn new(queue: LiveQueue, features: u64, counters: Arc<PairCounters>) -> Self {
        Self {
            chain: queue.new_chain(),
            queue,
            counters,
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
        if self.queue.available()? == 0 {
            return Ok(TxOutcome::Empty);
        }
        let mut room = carrier.backend.room();
        // Chains that are dropped need no room, but they count: the guest can't hold us here.
        for _ in 0..budget {
            if room == 0 {
                return Ok(TxOutcome::Blocked);
            }
            if meter.is_spent() {
                let more = self.queue.available()? > 0;
                return Ok(if more {
                    TxOutcome::Limited
                } else {
                    TxOutcome::Empty
                });
            }
            let before = self.queue.mark();
            if !self.queue.pop(&mut self.chain)? {
                return Ok(TxOutcome::Empty);
            }
            if self.chain.writable_len() > 0 {
                return Err(QueueFault::Direction(self.chain.head()));
            }
            match self.send(&mut carrier.backend, meter) {
                Err(SendError::Full) => {
                    self.queue.rewind(before);
                    return Ok(TxOutcome::Blocked);
                }
                Ok(queued) => {
                    room -= usize::from(queued);
                    carrier.unflushed |= queued;
                }
                Err(SendError::TooLong) => self.counters.tx_too_long.add(1),
                Err(SendError::TooShort) => self.counters.tx_too_short.add(1),
            }
            // The bytes are copied, so the guest has its buffers back already (5.1.6.2).
            self.queue.push_used(self.chain.head(), 0);
        }
        Ok(TxOutcome::More)
    }

    /// Gives back what waits, at most a ring of it, unsent and counted. Not published yet.
    pub(super) fn throw_away(&mut self) -> Result<(), QueueFault> {
        for _ in 0..self.queue.size() {
            if !self.queue.pop(&mut self.chain)? {
                break;
            }
            self.queue.push_used(self.chain.head(), 0);
            self.counters.tx_inactive.add(1);
        }
        Ok(())
    }

    /// Hands the chain's frame to the back end; false if it was dropped for its header.
    fn send<B: NetBackend>(
        &mut self,
        backend: &mut B,
        meter: &mut Meter,
    ) -> Result<bool, SendError> {
        let mut reader = self.chain.reader();
        let Some(len) = reader.remaining().checked_sub(self.header_len) else {
            return Err(SendError::TooShort);
        };
        let header = reader.read_array().map(TxHeader::new);
        reader.skip(self.header_len - TxHeader::LEN);
        if header.is_none_or(TxHeader::asks_for_offload) {
            self.counters.tx_bad_offload.add(1);
            return Ok(false);
        }
        backend.send(len, |fragment| fill(&mut reader, fragment))?;
        meter.spend(len);
        self.counters.tx_frames.add(1);
        self.counters.tx_bytes.add(len as u64);
        Ok(true)
    }
}

/// Writes all of `fragment`. The reader was found to hold as many bytes as all fragments have
/// together; were it not so, zeros are sent rather than what the memory held before.
fn fill(reader: &mut Reader<'_>, fragment: &mut [u8]) {
    let copied = reader.read(fragment);
    if let (_, rest @ [_, ..]) = fragment.split_at_mut(copied) {
        rest.fill(0);
    }
}
