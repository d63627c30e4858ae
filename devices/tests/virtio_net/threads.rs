//! 51: the system refuses threads (limits, control groups) while the driver changes the number of queue pairs.
//!
//! Everything that starts threads is under a seccomp listener of this process, which answers with EAGAIN
//! as often as the test says.

#[expect(dead_code, reason = "the tests of net-afxdp choose among calls")]
#[path = "../../../net-afxdp/tests/veth/seccomp.rs"]
mod seccomp;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::channel,
    },
    thread,
};

use devices::testing::{register, status, wait_for};

use crate::pairs_guest::*;

/// Which of the next threads are refused.
#[derive(Default)]
struct Refusals {
    after: AtomicU32,
    count: AtomicU32,
}

impl Refusals {
    /// Lets `after` threads start, and refuses `count` after them.
    fn set(&self, after: u32, count: u32) {
        self.after.store(after, Ordering::SeqCst);
        self.count.store(count, Ordering::SeqCst);
    }

    /// One wants to start; the error that it gets.
    fn judge(&self) -> Option<i32> {
        let take_one = |counter: &AtomicU32| {
            let left = |left: u32| left.checked_sub(1);
            counter
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left)
                .is_ok()
        };
        (!take_one(&self.after) && take_one(&self.count)).then_some(libc::EAGAIN)
    }
}

/// Runs the test in a thread that can be refused threads, as can those that it starts.
fn refusable(test: impl FnOnce(&Refusals) + Send + 'static) {
    let refusals = Arc::<Refusals>::default();
    let (tell, listener) = channel();
    let (told, name) = (
        refusals.clone(),
        thread::current().name().map(str::to_owned),
    );
    let body = thread::Builder::new().name(name.unwrap_or_default());
    let body = body.spawn(move || {
        let calls = [libc::SYS_clone, libc::SYS_clone3];
        tell.send(seccomp::supervise(&calls).unwrap()).unwrap();
        drop(tell);
        test(&told);
    });
    let listener = listener.recv().unwrap();
    while let Some(call) = seccomp::next(&listener) {
        seccomp::answer(&listener, &call, refusals.judge());
    }
    body.unwrap().join().unwrap();
}

#[test]
fn without_a_thread_for_another_pair_the_card_goes_on_as_before() {
    refusable(|refusals| {
        let mut guest = PairsGuest::start("tfewer", 3);
        let mut refused = 0;
        for used in 1..=3 {
            assert_eq!(guest.set_pairs(used), OK);
            for wanted in (1..=3).filter(|&wanted| wanted != used) {
                for after in 0..wanted {
                    refusals.set(u32::try_from(after).unwrap(), 1);
                    assert_eq!(guest.set_pairs(wanted), ERR, "{used} to {wanted}, {after}");
                    refused += 1;
                    guest.check_traffic(used);
                }
                // The former ones are refused for a while as well.
                refusals.set(0, 7);
                assert_eq!(guest.set_pairs(wanted), ERR, "{used} to {wanted}");
                refused += 1;
                guest.check_traffic(used);
            }
        }
        assert_eq!(guest.control.counters().control_refused, refused);
        assert_eq!(guest.set_pairs(2), OK, "when the system has threads again");
        guest.check_traffic(2);
        guest.assert_sound();
    });
}

/// 57: never half alive.
#[test]
fn without_any_thread_the_vm_ends_and_says_why() {
    refusable(|refusals| {
        let mut guest = PairsGuest::start("tnone", 2);
        guest.check_traffic(1);
        refusals.set(0, u32::MAX);
        guest.give_command(&[4, 0, 2, 0], 1);
        let faults = Arc::clone(&guest.faults);
        let fault = wait_for("the report", || faults.lock().unwrap().pop());
        assert!(
            fault.starts_with(
                "the io-thread tnone.ctrl can't go on: could not start a network thread, nor"
            ),
            "{fault}"
        );
        guest.driver.wait_needs_reset();
        // An embedder may go on all the same.
        refusals.set(0, 0);
        guest.driver.write(register::STATUS, 0);
        guest.boot();
        assert_eq!(guest.set_pairs(2), OK);
        guest.check_traffic(2);
    });
}

#[test]
fn without_a_thread_at_driver_ok_the_driver_is_told_and_may_try_again() {
    refusable(|refusals| {
        let mut guest = PairsGuest::start("tok", 2);
        // The io-thread, and that of the control queue.
        for after in [0, 1] {
            guest.driver.write(register::STATUS, 0);
            refusals.set(after, 1);
            guest.set_up(2);
            assert_ne!(
                guest.driver.status() & status::NEEDS_RESET,
                0,
                "after {after} threads"
            );
        }
        guest.driver.write(register::STATUS, 0);
        guest.boot();
        guest.check_traffic(1);
    });
}
