//! Several queue pairs on several queues of a real interface. The far end is an AF_XDP port too: what
//! it sends on one queue arrives on one queue, in native mode the one with the same number.

use std::collections::HashSet;

use devices::testing::register;
use net_afxdp::AttachMode;

use crate::{
    afxdp::{open_queues, veth_with},
    guest::*,
    pairs_guest::*,
};

fn carries_traffic(name: &str, mode: AttachMode, queues: u32) {
    let Some((near, far)) = veth_with(queues) else {
        return;
    };
    let (_near_port, backends) = open_queues(near, mode, queues);
    let (_far_port, wires) = open_queues(far, mode, queues);
    let count = wires.len();
    let mut guest = PairsGuest::plug_on(name, backends, wires);
    guest.boot();
    guest.learn_the_wires();
    let reached = HashSet::<usize>::from_iter(guest.arrives.iter().copied());
    assert!(reached.len() > 1, "only {reached:?}");
    let mut received = vec![0; count];
    let mut sent = vec![1; count];
    for wire in 0..count {
        received[guest.arrives[wire]] += 1;
    }
    for round in 0..12 {
        if round % 4 == 0 {
            guest.boot();
        }
        let used = 1 + round % count;
        assert_eq!(guest.set_pairs(used), OK);
        // More than the frame memory holds, so that every frame is used again.
        for seed in 0..150 {
            let frame = pattern(60 + (seed * 37 + round) % 1400, seed);
            let (wire, pair) = (seed % count, seed % used);
            let queue = guest.arrives[wire];
            guest.check_received(queue % used, wire, &frame);
            guest.check_sent(pair, &frame);
            received[queue] += 1;
            sent[pair] += 1;
        }
    }
    guest.driver.write(register::STATUS, 0);
    for (queue, report) in guest.control.reports().iter().enumerate() {
        let frames = report.frames.unwrap();
        assert!(frames.adds_up(), "queue {queue}: {frames:?}");
        let named = |name| report.counters.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(named("rx_packets"), received[queue], "queue {queue}");
        assert_eq!(named("tx_packets"), sent[queue], "queue {queue}");
        assert_eq!((named("tx_lost"), named("invalid_descriptors")), (0, 0));
    }
    let counters = guest.control.counters();
    assert_eq!(counters.rx_frames, received.iter().sum::<u64>());
    assert_eq!(counters.tx_frames, sent.iter().sum::<u64>());
    assert!(counters.rx_steered > 0);
    guest.assert_sound();
}

#[test]
fn two_queues_in_native_mode() {
    carries_traffic("tx2n", AttachMode::Native, 2);
}

/// Three, as a veth in this mode may count the sender's queues from 1: the first two arrive on
/// queue 0 then.
#[test]
fn three_queues_in_skb_mode() {
    carries_traffic("tx3s", AttachMode::Skb, 3);
}

#[test]
fn four_queues_in_native_mode() {
    carries_traffic("tx4n", AttachMode::Native, 4);
}

/// The number of pairs changes, and the card is reset, with frames under way in all rings.
#[test]
fn changes_under_load_lose_no_frame_memory() {
    let Some((near, far)) = veth_with(2) else {
        return;
    };
    let (_near_port, backends) = open_queues(near, AttachMode::Native, 2);
    let (_far_port, wires) = open_queues(far, AttachMode::Native, 2);
    let mut guest = PairsGuest::plug_on("tx2flux", backends, wires);
    for round in 0..100 {
        guest.boot();
        for used in [2, 1, 2] {
            assert_eq!(guest.set_pairs(used), OK);
            for seed in 0..10 {
                guest.queue_frame(used - 1, &pattern(1000, seed));
                send(&mut guest.wires[seed % 2], &pattern(1000, seed));
            }
        }
        guest.driver.write(register::STATUS, 0);
        for report in guest.control.reports() {
            let frames = report.frames.unwrap();
            assert!(frames.adds_up(), "round {round}: {frames:?}");
        }
        for wire in &mut guest.wires {
            while take(wire).is_some() {}
        }
    }
    guest.boot();
    assert_eq!(guest.set_pairs(2), OK);
    guest.check_traffic(2);
    guest.assert_sound();
}
