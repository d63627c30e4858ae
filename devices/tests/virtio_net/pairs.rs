//! Traffic over several queue pairs, while the driver changes how many it uses.

use std::{collections::HashSet, thread};

use devices::{
    testing::{register, wait_for},
    virtio::net::{NetBackend, loopback::Loopback},
};

use crate::{guest::*, pairs_guest::*};

fn frame(seed: usize) -> Vec<u8> {
    [&seed.to_le_bytes()[..], &pattern(60, seed)].concat()
}

fn seed_of(frame: &[u8]) -> usize {
    usize::from_le_bytes(frame[..8].try_into().unwrap())
}

/// 5.1.6.5.5: one pair until the driver says otherwise; then each by itself.
#[test]
fn pairs_are_used_when_the_driver_says_so() {
    for count in [2, 4] {
        let mut guest = PairsGuest::start("tmq", count);
        guest.check_traffic(1);
        guest.queue_frame(1, &pattern(64, 1));
        guest.check_traffic(1);
        assert_eq!(guest.pairs[1].tx.used_idx(), 0, "the pair is not used");
        assert_eq!(guest.set_pairs(count), OK);
        let late = wait_for("what waited", || take(&mut guest.wires[1]));
        assert_eq!(late, pattern(64, 1));
        guest.pairs[1].tx.wait_used();
        let steered = guest.control.counters().rx_steered;
        assert_eq!(steered, 4 * (count as u64 - 1), "by the first pair");
        guest.check_traffic(count);
        assert_eq!(guest.control.counters().rx_steered, steered);
        for used in (1..=count).chain((1..count).rev()) {
            assert_eq!(guest.set_pairs(used), OK);
            guest.check_traffic(used);
        }
        guest.assert_sound();
    }
}

/// No thread spins, and a pair that is not used has none.
#[test]
fn unused_pairs_cost_nothing() {
    let mut guest = PairsGuest::start("tmqidle", 3);
    assert_eq!(guest.set_pairs(2), OK);
    guest.check_traffic(2);
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("tmqidle")).collect();
        names.sort();
        names.concat()
    };
    // A joined thread may be seen in its last instant.
    let wait_for_threads = |names: &str| {
        wait_for(names, || (threads() == names).then_some(()));
    };
    wait_for_threads("tmqidle\ntmqidle.1\ntmqidle.ctrl\n");
    for name in ["tmqidle", "tmqidle.1", "tmqidle.ctrl"] {
        assert_idle(name);
    }
    guest.driver.write(register::STATUS, 0);
    wait_for_threads("");
}

/// The number of pairs goes up and down while frames come in on all wires: each comes in once, on a
/// queue that is in use, and none is lost.
#[test]
fn changes_under_traffic_lose_nothing() {
    const FRAMES: usize = 3000;
    for count in [2, 4] {
        let ends = (0..count).map(|_| Loopback::pair(MAX_FRAME).unwrap());
        let (near, far): (Vec<_>, Vec<_>) = ends.unzip();
        let unused = (0..count).map(|_| Loopback::pair(MAX_FRAME).unwrap().0);
        let mut guest = PairsGuest::plug_on("tmqflux", near, unused.collect());
        guest.boot();
        let mut seen = HashSet::new();
        let ender = Ender::default();
        thread::scope(|scope| {
            let _guard = ender.guard();
            for (wire, mut far) in far.into_iter().enumerate() {
                let ender = &ender;
                scope.spawn(move || {
                    for i in 0..FRAMES / count {
                        let bytes = frame(i * count + wire);
                        let _ = far.send(bytes.len(), |buffer| buffer.copy_from_slice(&bytes));
                        while far.flush().is_err() && ender.goes_on() {
                            thread::yield_now();
                        }
                    }
                });
            }
            let mut used = 1;
            while seen.len() < FRAMES {
                let next = 1 + (used + seen.len()) % count;
                assert_eq!(guest.set_pairs(next), OK);
                // What the other queues got before the command is all that they get.
                let idle: Vec<_> = (next..count)
                    .map(|p| guest.pairs[p].rx.used_idx())
                    .collect();
                used = next;
                for _ in 0..50 {
                    for pair in 0..count {
                        while let Some(bytes) = guest.take_received(pair) {
                            assert_eq!(bytes, frame(seed_of(&bytes)));
                            assert!(seen.insert(seed_of(&bytes)), "twice");
                        }
                    }
                    thread::yield_now();
                }
                let now: Vec<_> = (next..count)
                    .map(|p| guest.pairs[p].rx.used_idx())
                    .collect();
                assert_eq!(idle, now, "a frame on a queue that is not used");
            }
        });
        assert_eq!(guest.control.counters().rx_frames, FRAMES as u64);
        guest.assert_sound();
    }
}

/// What the driver had queued before it gave a pair up is sent.
#[test]
fn giving_a_pair_up_sends_what_is_queued() {
    let mut guest = PairsGuest::start("tmqdrain", 2);
    for round in 0..100 {
        assert_eq!(guest.set_pairs(2), OK);
        for i in 0..20 {
            guest.queue_frame(1, &frame(round * 20 + i));
        }
        assert_eq!(guest.set_pairs(1), OK);
        for i in 0..20 {
            assert!(guest.pairs[1].tx.take_used().is_some(), "given back");
            let sent = wait_for("the frame", || take(&mut guest.wires[1]));
            assert_eq!(sent, frame(round * 20 + i));
        }
    }
    assert_eq!(guest.control.counters().tx_inactive, 0);
    guest.check_traffic(1);
    guest.assert_sound();
}

/// With a wire that takes nothing the command ends all the same, and the driver has its buffers back.
#[test]
fn giving_a_stuck_pair_up_gives_its_buffers_back() {
    let mut guest = PairsGuest::start("tmqstuck", 2);
    assert_eq!(guest.set_pairs(2), OK);
    let mut queued = 0;
    // The far end is not read: the socket and then the slots fill up.
    while guest.control.counters().tx_blocked == 0 {
        guest.pairs[1].tx.take_used();
        if guest.pairs[1].tx.room() > 0 {
            guest.queue_frame(1, &pattern(64, 1));
            queued += 1;
        }
    }
    while guest.pairs[1].tx.take_used().is_some() {}
    while guest.pairs[1].tx.room() > 0 {
        guest.queue_frame(1, &pattern(64, 1));
        queued += 1;
    }
    assert_eq!(guest.set_pairs(1), OK);
    while guest.pairs[1].tx.take_used().is_some() {}
    assert_eq!(guest.pairs[1].tx.room(), usize::from(QUEUE_SIZE));
    let counters = guest.control.counters();
    assert!(counters.tx_inactive > 0, "{counters:?}");
    assert_eq!(counters.tx_frames + counters.tx_inactive, queued);
    // What the back end had taken goes out as the wire takes it, though the pair is not used.
    for _ in 0..counters.tx_frames {
        let sent = wait_for("the rest", || take(&mut guest.wires[1]));
        assert_eq!(sent, pattern(64, 1));
    }
    assert_eq!(guest.set_pairs(2), OK);
    guest.check_traffic(2);
    guest.assert_sound();
}

/// A broken rule stops one queue; the other pairs, and changes of their number, go on.
#[test]
fn a_fault_on_one_pair_leaves_the_others_alone() {
    let mut guest = PairsGuest::start("tmqfault", 3);
    assert_eq!(guest.set_pairs(3), OK);
    guest.pairs[1].tx.offer(0xffff);
    guest.driver.kick(3);
    guest.driver.wait_needs_reset();
    for used in [3, 1, 2, 3] {
        assert_eq!(guest.set_pairs(used), OK);
        guest.check_sent(0, &pattern(64, used));
        for wire in 0..3 {
            guest.check_received(wire % used, wire, &pattern(64, used));
        }
    }
    assert_eq!(guest.control.counters().guest_faults, 1, "told once");
    guest.boot();
    guest.check_traffic(1);
    assert_eq!(guest.set_pairs(3), OK);
    guest.check_traffic(3);
    guest.assert_sound();
}

/// 35: resets with several pairs in use, in the middle of traffic.
#[test]
fn resets_with_several_pairs() {
    let mut guest = PairsGuest::start("tmq35", 4);
    let mut seen = HashSet::new();
    for round in 0..200 {
        guest.boot();
        let used = 1 + round % 4;
        assert_eq!(guest.set_pairs(used), OK);
        for pair in 0..used {
            guest.queue_frame(pair, &frame(round * 4 + pair));
            send(&mut guest.wires[3 - pair], &pattern(64, round));
        }
        if round % 3 == 0 {
            guest.pairs[used - 1].tx.wait_used();
        }
        guest.driver.write(register::STATUS, 0);
        let count = guest.control.counters();
        for wire in &mut guest.wires {
            while let Some(bytes) = take(wire) {
                assert_eq!(bytes, frame(seed_of(&bytes)));
                assert!(seen.insert(seed_of(&bytes)), "twice");
            }
        }
        assert_eq!(count, guest.control.counters(), "nothing after reset");
    }
    guest.boot();
    guest.check_traffic(1);
    guest.assert_sound();
}
