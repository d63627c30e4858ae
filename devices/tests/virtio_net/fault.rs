//! Back ends that fail: the host's faults, not the guest's.

use std::{
    io,
    ops::ControlFlow,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use devices::{
    testing::{register, wait_for},
    virtio::net::{
        NetBackend,
        backend::{BackendReport, FrameAccount, SendError},
        loopback::Loopback,
    },
};

use crate::{guest::*, pairs_guest::PairsGuest};

const WELL: u8 = 0;
const LINK_DOWN: u8 = 1;
const PANIC: u8 = 2;

/// A loopback that does as it is told.
struct Moody {
    inner: Loopback,
    mood: Arc<AtomicU8>,
}

impl NetBackend for Moody {
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
        match self.mood.load(Ordering::SeqCst) {
            // ENETDOWN
            LINK_DOWN => Err(io::Error::from_raw_os_error(100)),
            PANIC => panic!("told to"),
            _ => self.inner.flush(),
        }
    }

    fn report(&mut self) -> BackendReport {
        let frames = FrameAccount {
            free: 1,
            fill: 2,
            rx: 3,
            tx: 4,
            total: 10,
        };
        BackendReport {
            frames: Some(frames),
            counters: vec![("answers", 42)],
        }
    }
}

fn moody(name: &str) -> (NetGuest, Arc<AtomicU8>) {
    let (inner, wire) = Loopback::pair(MAX_FRAME).unwrap();
    let mood = Arc::new(AtomicU8::new(WELL));
    let near = Moody {
        inner,
        mood: Arc::clone(&mood),
    };
    let mut guest = NetGuest::plug_on(name, near, wire);
    guest.boot();
    guest.check_traffic();
    (guest, mood)
}

/// A link that goes down and comes back loses nothing that was queued, and nothing spins.
#[test]
fn frames_wait_for_the_link() {
    let (mut guest, mood) = moody("tdown");
    mood.store(LINK_DOWN, Ordering::SeqCst);
    guest.transmit(&pattern(64, 1));
    guest.transmit(&pattern(64, 2));
    wait_for("the error", || {
        (guest.control.counters().tx_carrier_errors > 0).then_some(())
    });
    assert_idle("tdown");
    // The other way still works.
    guest.post(2048);
    guest.inject(&pattern(64, 3));
    assert_eq!(guest.received(), pattern(64, 3));
    assert!(guest.wire_is_empty());
    // The guest has nothing more to send, and still they go out.
    mood.store(WELL, Ordering::SeqCst);
    assert_eq!(guest.sent(), pattern(64, 1));
    assert_eq!(guest.sent(), pattern(64, 2));
    guest.check_traffic();
    guest.assert_sound();
}

/// 57: an io-thread that dies tells why, and the transport still answers.
#[test]
fn a_dying_thread_is_reported() {
    let (mut guest, mood) = moody("tdie");
    mood.store(PANIC, Ordering::SeqCst);
    guest.queue_bytes(&with_header(&pattern(64, 1)));
    let faults = Arc::clone(&guest.faults);
    let fault = wait_for("the report", || faults.lock().unwrap().first().cloned());
    assert_eq!(fault, "the io-thread tdie panicked: told to");
    guest.driver.wait_needs_reset();
    guest.driver.write(register::STATUS, 0);
    assert_eq!(guest.driver.status(), 0);
}

/// 57: so it is with one of several, and the control queue answers, whatever it answers.
#[test]
fn a_dying_thread_of_several_is_reported() {
    for used in [1, 2, 3] {
        let mood = Arc::new(AtomicU8::new(WELL));
        let ends = (0..3).map(|_| {
            let (inner, wire) = Loopback::pair(MAX_FRAME).unwrap();
            let mood = Arc::clone(&mood);
            (Moody { inner, mood }, wire)
        });
        let (near, far): (Vec<_>, Vec<_>) = ends.unzip();
        let mut guest = PairsGuest::plug_on("tdie3", near, far);
        guest.boot();
        guest.set_pairs(used);
        guest.check_traffic(used);
        mood.store(PANIC, Ordering::SeqCst);
        guest.queue_frame(used - 1, &pattern(64, 1));
        let faults = Arc::clone(&guest.faults);
        let fault = wait_for("the report", || faults.lock().unwrap().pop());
        assert!(fault.starts_with("the io-thread tdie3"), "{fault}");
        assert!(fault.ends_with("panicked: told to"), "{fault}");
        guest.driver.wait_needs_reset();
        mood.store(WELL, Ordering::SeqCst);
        for count in [1, 3, 2] {
            guest.set_pairs(count);
        }
        guest.driver.write(register::STATUS, 0);
        assert_eq!(guest.driver.status(), 0);
    }
}

/// What the back end has to say at its end reaches the VMM.
#[test]
fn the_back_ends_report_is_kept() {
    let (mut guest, _) = moody("trep");
    assert_eq!(guest.control.reports(), [BackendReport::default()]);
    guest.driver.reset_by_vmm();
    let reports = guest.control.reports();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].frames.unwrap().adds_up());
    assert_eq!(reports[0].counters, [("answers", 42)]);
    assert!(
        !FrameAccount {
            free: 2,
            total: 10,
            ..FrameAccount::default()
        }
        .adds_up()
    );
}
