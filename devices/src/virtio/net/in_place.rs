//! Sending frames from where the guest put them: the driver has its buffers back when the wire says
//! that it has read them, and not before.
//!
//! Such a frame's bytes go out as they are when the wire reads them, which a guest may change until
//! then: it is its own frame. What is never read are other bytes than those of the buffers it gave, as
//! place and length are fixed when the chain is taken. So nothing that is checked in a frame may
//! be trusted afterwards; here nothing is checked, and a frame that has to be changed is copied.

use std::{thread, time::Duration};

use super::{
    NetBackend,
    backend::{Piece, SendError},
    carrier::Carrier,
};
use crate::virtio::queue::Reader;

/// Shorter frames are copied: that costs less than to keep account of where they lie. As measured
/// (docs/figures.md) a frame of 512 bytes costs a little more in place, one of 1514 bytes clearly less.
const SHORTEST: usize = 768;

/// Most pieces that a frame is looked for in. One in more is copied.
const MAX_PIECES: usize = 8;

/// How long a driver that gives its queue up may have to wait for frames that the wire still reads,
/// in rounds of a [`ROUND`].
const ROUNDS: u32 = 100;
/// After so many, what waits in our ring only is copied: the link may be down for long.
const PATIENT_ROUNDS: u32 = 10;
const ROUND: Duration = Duration::from_millis(1);

/// Longest pause between two looks for frames that come back, as a power of two of milliseconds.
const MAX_PAUSE: u32 = 6;

/// Hands the `len` bytes at `reader` to the wire where they are; false: they have to be copied.
pub(super) fn send<B: NetBackend>(
    backend: &mut B,
    mut reader: Reader<'_>,
    len: usize,
    head: u16,
) -> Result<bool, SendError> {
    if len < SHORTEST || !backend.sends_in_place() {
        return Ok(false);
    }
    let mut pieces = [Piece {
        offset: 0,
        length: 0,
    }; MAX_PIECES];
    let mut count = 0;
    while let Some((offset, bytes)) = reader.next_place() {
        let (Some(piece), Ok(length)) = (pieces.get_mut(count), u32::try_from(bytes)) else {
            return Ok(false);
        };
        *piece = Piece { offset, length };
        count += 1;
    }
    match backend.send_in_place(pieces.get(..count).unwrap_or_default(), head) {
        Ok(()) => Ok(true),
        Err(SendError::NotInPlace) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes all frames back that were sent in place, before the driver's queue goes. `done` hears of those
/// whose memory nobody reads any more; returns how many there were that somebody does, even after
/// a bounded time.
pub(super) fn settle<B: NetBackend>(carrier: &mut Carrier<B>, done: impl FnMut(u16)) -> usize {
    take_back(carrier, done);
    carrier.backend.forget_in_flight()
}

/// The same before the queue rests: what somebody reads even after that time is still expected to come back.
pub(super) fn take_back<B: NetBackend>(carrier: &mut Carrier<B>, mut done: impl FnMut(u16)) {
    for round in 0..ROUNDS {
        carrier.backend.take_sent(&mut done);
        if carrier.backend.in_flight() == 0 {
            return;
        }
        if round == PATIENT_ROUNDS {
            carrier.backend.withdraw();
            continue;
        }
        if round > 0 {
            thread::sleep(ROUND);
        }
        // Some of it may not have been shown to the wire yet; that it took nothing is known.
        let _ = carrier.backend.flush();
    }
}

/// How long to sleep while frames are out there, of which nothing announces that they are back.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    /// Pauses since the last one came.
    pauses: u32,
}

impl Lookout {
    /// One came.
    pub(super) fn success(&mut self) {
        self.pauses = 0;
    }

    /// The next pause in milliseconds: short at first, longer while the link is down.
    pub(super) fn pause_ms(&mut self) -> i32 {
        let pause = 1 << self.pauses;
        self.pauses = (self.pauses + 1).min(MAX_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_something_comes() {
        let mut lookout = Lookout::default();
        let pauses: Vec<_> = (0..9).map(|_| lookout.pause_ms()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        lookout.success();
        assert_eq!(lookout.pause_ms(), 1);
    }
}
