//! How much a thread does before it looks after the other way, and after the wire.

use std::{
    io,
    ops::ControlFlow,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use devices::{
    testing::Buffer,
    virtio::net::{NetBackend, backend::SendError, loopback::Loopback},
};

use crate::guest::*;

/// The most frames of one burst.
const BURST: usize = 64;

/// A back end that remembers how many frames it got between two flushes at most.
struct Watched {
    inner: Loopback,
    unflushed: usize,
    longest: Arc<AtomicUsize>,
}

impl NetBackend for Watched {
    fn max_frame(&self) -> usize {
        self.inner.max_frame()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.event_fd()
    }

    fn receive(&mut self, budget: usize, take: impl FnMut(&[&[u8]]) -> ControlFlow<()>) -> usize {
        self.inner.receive(budget, take)
    }

    fn discard(&mut self) -> usize {
        self.inner.discard()
    }

    fn room(&mut self) -> usize {
        self.inner.room()
    }

    fn send(&mut self, len: usize, fill: impl FnMut(&mut [u8])) -> Result<(), SendError> {
        self.inner.send(len, fill)?;
        self.unflushed += 1;
        self.longest.fetch_max(self.unflushed, Ordering::SeqCst);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unflushed = 0;
        self.inner.flush()
    }
}

/// A guest that sends all it can holds up neither what it receives nor its own frames.
#[test]
fn a_full_ring_is_sent_in_bursts() {
    let (near, wire) = Loopback::pair(MAX_FRAME).unwrap();
    let longest = Arc::new(AtomicUsize::new(0));
    let watched = Watched {
        inner: near,
        unflushed: 0,
        longest: Arc::clone(&longest),
    };
    let mut guest = NetGuest::plug_on("tburst", watched, wire);
    guest.set_up();
    guest.tx = guest.driver.rings(TX, 256);
    let frame = with_header(&pattern(60, 1));
    let at = guest.driver.allocate(frame.len(), 16);
    guest.driver.write_memory(at, &frame);
    let len = u32::try_from(frame.len()).unwrap();
    let count = usize::from(guest.tx.size());
    for _ in 0..count {
        guest.tx.prepare(&[Buffer::readable(at, len)]);
    }
    guest.driver.enable(&guest.rx);
    guest.driver.enable(&guest.tx);
    guest.driver.start();
    // All are there at one time.
    guest.tx.show();
    guest.driver.kick(TX);
    for _ in 0..count {
        assert_eq!(guest.sent(), frame[frame.len() - 60..]);
        guest.tx.wait_used();
    }
    assert_eq!(longest.load(Ordering::SeqCst), BURST);
}
