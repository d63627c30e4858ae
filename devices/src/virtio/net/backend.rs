//! The boundary between a virtio-net queue pair and what carries its frames.

use std::{io, ops::ControlFlow, os::fd::BorrowedFd};

/// A checksum that the back end is to complete: over all bytes of the frame from `start` on, into the field at
/// `offset` from there.
pub use net_afxdp::ChecksumRequest;
/// A range of guest RAM, whose regions count as one after the other: offset 0 is the start of the first.
pub use net_afxdp::Piece;

/// One queue pair's way to the wire. AF_XDP is one; loopback and recording ones serve tests.
///
/// Owned by one thread, which makes all calls. Generic in the worker, so nothing is dynamic per
/// packet. Closures see bytes; the back end's frames never leave it.
pub trait NetBackend: Send + 'static {
    /// Longest frame in bytes (Ethernet header included, FCS not) that [`send`](Self::send) takes.
    fn max_frame(&self) -> usize;

    /// Readable when [`receive`](Self::receive) has something; writable when
    /// [`room`](Self::room) may have grown. `None`: the worker is woken by its queues alone.
    fn event_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Hands up to `budget` received frames, oldest first, each as its fragments in order (one,
    /// unless the frame is longer than a chunk), to `take`.
    ///
    /// `Break` means: not taken, keep this frame and stop. Returns how many were taken. The
    /// frames' memory goes back to the wire's side when this returns.
    fn receive(&mut self, budget: usize, take: impl FnMut(&[&[u8]]) -> ControlFlow<()>) -> usize;

    /// Throws away all that was received so far; returns how many frames. Used when the driver
    /// was not there to take them.
    fn discard(&mut self) -> usize;

    /// How many frames [`send`](Self::send) would take now. May reclaim what was sent before.
    fn room(&mut self) -> usize;

    /// Queues one frame of `len` bytes: calls `fill` for each of its fragments in order, which
    /// must write all of the slice it gets. Nothing reaches the wire before
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// `TooLong` and `TooShort` concern this frame alone (the caller drops and counts it); `Full`: retry when
    /// [`event_fd`](Self::event_fd) is writable.
    fn send(&mut self, len: usize, fill: impl FnMut(&mut [u8])) -> Result<(), SendError>;

    /// Whether [`send_with_checksum`](Self::send_with_checksum) is worth a try. Does not change.
    fn completes_checksums(&self) -> bool {
        false
    }

    /// [`send`](Self::send)s one frame whose checksum the back end completes. `fill` writes the sum of the
    /// pseudo-header into its field.
    ///
    /// # Errors
    /// `NoChecksum`: complete it, and use [`send`](Self::send); the others as there.
    fn send_with_checksum(
        &mut self,
        len: usize,
        checksum: ChecksumRequest,
        fill: impl FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        let _ = (len, checksum, fill);
        Err(SendError::NoChecksum)
    }

    /// Publishes what was queued and wakes the carrier up if it asks for it: at most a bounded
    /// number of system calls a burst.
    ///
    /// # Errors
    /// `WouldBlock`: some of it is still queued, flush again when [`event_fd`](Self::event_fd) is
    /// writable. Otherwise only what makes the back end unusable for now (link down, interface
    /// gone): what is queued stays queued, and what was lost is counted by the back end itself.
    fn flush(&mut self) -> io::Result<()>;

    /// Whether [`send_in_place`](Self::send_in_place) is worth a try.
    fn sends_in_place(&self) -> bool {
        false
    }

    /// Queues one frame that stays in guest memory, in these pieces. The back end reads it there
    /// until [`take_sent`](Self::take_sent) says `token`.
    ///
    /// # Errors
    /// `NotInPlace`: [`send`](Self::send) it; the others as there.
    fn send_in_place(&mut self, pieces: &[Piece], token: u16) -> Result<(), SendError> {
        let _ = (pieces, token);
        Err(SendError::NotInPlace)
    }

    /// Tells `done` the tokens of frames that nobody reads any more; returns how many.
    fn take_sent(&mut self, done: impl FnMut(u16)) -> usize {
        let _ = done;
        0
    }

    /// How many frames [`take_sent`](Self::take_sent) has not told yet.
    fn in_flight(&self) -> usize {
        0
    }

    /// Copies what waits in guest memory and is not being read already; returns how many pieces are.
    fn withdraw(&mut self) -> usize {
        0
    }

    /// [`take_sent`](Self::take_sent) is to tell nothing of what was sent before; returns how many
    /// frames that are.
    fn forget_in_flight(&mut self) -> usize {
        0
    }

    /// A way to ask, from any thread and at any time, what it threw away of what arrived; `None` if it never does.
    fn losses(&self) -> Option<Losses> {
        None
    }

    /// What the back end has to say of its life so far. Asked for when its thread ends.
    fn report(&mut self) -> BackendReport {
        BackendReport::default()
    }
}

/// How many frames arrived so far that there was no room for, so that they were thrown away before anybody saw them.
pub type Losses = Box<dyn Fn() -> u64 + Send + Sync>;

/// A back end's own view of what became of frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendReport {
    /// Where its frame memory is; `None` if it has none of its own.
    pub frames: Option<FrameAccount>,
    /// Its counters by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// Where the frames of a back end's memory are: none is ever in two places or in none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameAccount {
    /// In nobody's hands, ready to be sent.
    pub free: u64,
    /// With the wire, to receive into.
    pub fill: u64,
    /// Received and not yet taken.
    pub rx: u64,
    /// Queued to be sent, being sent, or sent and not yet reclaimed.
    pub tx: u64,
    /// All there are.
    pub total: u64,
}

impl FrameAccount {
    /// Whether every frame is in exactly one place.
    pub fn adds_up(&self) -> bool {
        let places = [self.free, self.fill, self.rx, self.tx];
        let sum = places
            .iter()
            .try_fold(0u64, |sum, &place| sum.checked_add(place));
        sum == Some(self.total)
    }
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// the frame is longer than the back end can carry
    #[error("the frame is longer than the back end can carry")]
    TooLong,
    /// the frame is no Ethernet frame: it has less than an Ethernet header
    #[error("the frame is shorter than an Ethernet header (14 bytes)")]
    TooShort,
    /// no frame memory or ring slot is free now
    #[error("no frame memory or ring slot is free now")]
    Full,
    /// of `send_in_place` only: the frame has to be copied
    #[error("the frame can't be sent from where it is")]
    NotInPlace,
    /// of `send_with_checksum` only: the checksum has to be completed before
    #[error("the back end does not complete the checksum of this frame")]
    NoChecksum,
}
