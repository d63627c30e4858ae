//! 59: Bus Master Enable is cleared while a card, which nobody can hurry, still reads frames from the driver's memory.

use std::{
    io,
    ops::ControlFlow,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use devices::{
    testing::{register, wait_for},
    virtio::net::{
        NetBackend,
        backend::{Piece, SendError},
        loopback::Loopback,
    },
};

use crate::guest::*;

/// Has frames in hand until it is let go.
struct Holder {
    inner: Loopback,
    held: Vec<u16>,
    lets_go: Arc<AtomicBool>,
}

impl NetBackend for Holder {
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
        self.inner.send(len, fill)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    fn sends_in_place(&self) -> bool {
        true
    }

    fn send_in_place(&mut self, _pieces: &[Piece], token: u16) -> Result<(), SendError> {
        self.held.push(token);
        Ok(())
    }

    fn take_sent(&mut self, done: impl FnMut(u16)) -> usize {
        if !self.lets_go.load(Ordering::Acquire) {
            return 0;
        }
        let count = self.held.len();
        self.held.drain(..).for_each(done);
        count
    }

    fn in_flight(&self) -> usize {
        self.held.len()
    }

    fn forget_in_flight(&mut self) -> usize {
        std::mem::take(&mut self.held).len()
    }
}

#[test]
fn frames_that_the_card_still_has_come_back_later() {
    let (inner, wire) = Loopback::pair(MAX_FRAME).unwrap();
    let lets_go = Arc::<AtomicBool>::default();
    let near = Holder {
        inner,
        held: Vec::new(),
        lets_go: Arc::clone(&lets_go),
    };
    let mut guest = NetGuest::plug_on("tbmheld", near, wire);
    guest.boot();
    let sent = |guest: &NetGuest| guest.control.counters().tx_frames;
    for seed in 0..4 {
        guest.queue_bytes(&with_header(&pattern(1000, seed)));
    }
    wait_for("them to be sent", || (sent(&guest) == 4).then_some(()));
    guest.driver.pci().set_bus_master(false);
    guest.driver.pci().set_bus_master(true);
    assert_eq!(guest.tx.take_used(), None, "the card has them");
    lets_go.store(true, Ordering::Release);
    for _ in 0..4 {
        guest.tx.wait_used();
    }
    assert_eq!(guest.control.counters().tx_unreturned, 0);
    // What a reset does not wait for is counted.
    lets_go.store(false, Ordering::Release);
    guest.queue_bytes(&with_header(&pattern(1000, 9)));
    wait_for("it to be sent", || (sent(&guest) == 5).then_some(()));
    guest.driver.pci().set_bus_master(false);
    guest.driver.write(register::STATUS, 0);
    assert_eq!(guest.control.counters().tx_unreturned, 1);
    guest.driver.pci().set_bus_master(true);
    guest.assert_sound();
}
