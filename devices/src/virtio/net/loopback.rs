//! A back end without hardware, privileges or a network: frames go to another [`Loopback`] through
//! a pair of Unix datagram sockets.
//!
//! For tests and examples. Sockets rather than a queue in memory, because they are readable and
//! writable, and fill up, in the way of the real thing.

use std::{
    io,
    ops::ControlFlow,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixDatagram,
    },
};

use super::{
    backend::{NetBackend, SendError},
    wire::ETHERNET_HEADER,
};

/// Most fragments that one frame is handed over in.
const MAX_FRAGMENTS: usize = 64;
/// Most frames that are thrown away at once: more than a socket holds.
const MAX_DISCARD: usize = 4096;

/// One end of a wire in memory.
#[derive(Debug)]
pub struct Loopback {
    socket: UnixDatagram,
    max_frame: usize,
    /// Frames are handed over, and asked for, in pieces of this many bytes.
    fragment: usize,
    /// Queued and not yet flushed, oldest first: a ring of `SLOTS` frames.
    slots: Vec<Slot>,
    oldest: usize,
    queued: usize,
    /// The frame that was received last, and its length if it is still to be taken.
    incoming: Vec<u8>,
    held: Option<usize>,
}

#[derive(Debug, Clone)]
struct Slot {
    len: usize,
    bytes: Vec<u8>,
}

impl Loopback {
    /// How many frames can wait for [`flush`](NetBackend::flush).
    pub const SLOTS: usize = 256;

    /// The two ends of a wire for frames of up to `max_frame` bytes.
    ///
    /// # Errors
    /// The system has no more sockets.
    pub fn pair(max_frame: usize) -> io::Result<(Self, Self)> {
        let (one, other) = UnixDatagram::pair()?;
        Ok((Self::new(one, max_frame)?, Self::new(other, max_frame)?))
    }

    fn new(socket: UnixDatagram, max_frame: usize) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let slot = Slot {
            len: 0,
            bytes: vec![0; max_frame],
        };
        Ok(Self {
            socket,
            max_frame,
            fragment: max_frame.max(1),
            slots: vec![slot; Self::SLOTS],
            oldest: 0,
            queued: 0,
            incoming: vec![0; max_frame],
            held: None,
        })
    }

    /// Splits frames into fragments of `size` bytes, as a multi-buffer back end does.
    #[must_use]
    pub fn with_fragments(mut self, size: usize) -> Self {
        self.fragment = size.max(self.max_frame.div_ceil(MAX_FRAGMENTS)).max(1);
        self
    }
}

impl Loopback {
    /// Moves queued frames into the socket, as many as it takes.
    fn push_out(&mut self) -> io::Result<()> {
        while self.queued > 0 {
            if let Some(slot) = self.slots.get(self.oldest) {
                let (frame, _) = slot.bytes.split_at(slot.len);
                self.socket.send(frame)?;
            }
            self.oldest = (self.oldest + 1) % Self::SLOTS;
            self.queued -= 1;
        }
        Ok(())
    }

    /// The length of the next received frame, which is in `incoming` then.
    fn next_frame(&mut self) -> Option<usize> {
        let held = self.held.take();
        held.or_else(|| self.socket.recv(&mut self.incoming).ok())
    }
}

impl NetBackend for Loopback {
    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn receive(
        &mut self,
        budget: usize,
        mut take: impl FnMut(&[&[u8]]) -> ControlFlow<()>,
    ) -> usize {
        let mut taken = 0;
        while taken < budget {
            let Some(len) = self.next_frame() else {
                break;
            };
            let (frame, _) = self.incoming.split_at(len);
            let mut fragments = [&[][..]; MAX_FRAGMENTS];
            let pieces = frame.chunks(self.fragment);
            let count = pieces.len().clamp(1, MAX_FRAGMENTS);
            for (fragment, piece) in fragments.iter_mut().zip(pieces) {
                *fragment = piece;
            }
            let (fragments, _) = fragments.split_at(count);
            if take(fragments).is_break() {
                self.held = Some(len);
                break;
            }
            taken += 1;
        }
        taken
    }

    fn discard(&mut self) -> usize {
        let mut count = 0;
        // Bounded, as the far end may send for ever.
        while count < MAX_DISCARD && self.next_frame().is_some() {
            count += 1;
        }
        count
    }

    fn room(&mut self) -> usize {
        if self.queued == Self::SLOTS {
            // An error shows itself again at the next flush.
            let _ = self.push_out();
        }
        Self::SLOTS - self.queued
    }

    fn send(&mut self, len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<(), SendError> {
        if len < ETHERNET_HEADER {
            return Err(SendError::TooShort);
        }
        if len > self.max_frame {
            return Err(SendError::TooLong);
        }
        if self.queued == Self::SLOTS {
            return Err(SendError::Full);
        }
        let free = (self.oldest + self.queued) % Self::SLOTS;
        let slot = self.slots.get_mut(free).ok_or(SendError::Full)?;
        slot.len = len;
        let (frame, _) = slot.bytes.split_at_mut(len);
        frame.chunks_mut(self.fragment).for_each(&mut fill);
        self.queued += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push_out()
    }
}
