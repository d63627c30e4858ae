//! The boundary between a virtio-net queue pair and what carries its frames.

use std::{io, ops::ControlFlow, os::fd::BorrowedFd};

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
    /// `TooLong` and `Empty` concern this frame alone (the caller drops and counts it); `Full`: retry when
    /// [`event_fd`](Self::event_fd) is writable.
    fn send(&mut self, len: usize, fill: impl FnMut(&mut [u8])) -> Result<(), SendError>;

    /// Publishes what was queued and wakes the carrier up if it asks for it: at most a bounded
    /// number of system calls a burst.
    ///
    /// # Errors
    /// Only what makes the back end unusable for now (link down, interface gone); what was lost is
    /// counted by the back end itself.
    fn flush(&mut self) -> io::Result<()>;
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// the frame is longer than the back end can carry
    #[error("the frame is longer than the back end can carry")]
    TooLong,
    /// the frame has no bytes
    #[error("the frame has no bytes")]
    Empty,
    /// no frame memory or ring slot is free now
    #[error("no frame memory or ring slot is free now")]
    Full,
}
