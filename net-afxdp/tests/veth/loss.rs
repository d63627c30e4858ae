//! Frames that are lost, refused or dropped: counted, and their memory never lost.

use std::{
    ops::ControlFlow,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
};

use net_afxdp::{PortConfig, SendError};
use rustix::event::PollFlags;

use crate::{
    net::{Net, ip},
    packet::{Packet, Random, frame, wait},
    traffic::{MODES, config, open, receive, send},
};

#[test]
fn a_panic_loses_no_frame() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&PortConfig {
        frames: 64,
        ..config(&net.near)
    });
    let far = Packet::open(&net.far);
    for number in 0..100 {
        far.send(&frame(number, 100)).unwrap();
        wait(queue.as_fd(), PollFlags::IN);
        let result = catch_unwind(AssertUnwindSafe(|| {
            queue.receive(1, |_| panic!("expected: in a receive of the test"));
        }));
        assert!(result.is_err(), "frame {number} did not come");
        let result = catch_unwind(AssertUnwindSafe(|| {
            queue.send(100, |_| panic!("expected: in a send of the test"))
        }));
        assert!(result.is_err());
    }
    queue.flush().unwrap();
    let accounting = queue.accounting();
    assert!(accounting.is_balanced(), "{accounting:?}");
    assert_eq!((accounting.free, accounting.tx), (32, 0));
    assert!(
        far.try_receive().is_none(),
        "a frame whose making panicked was sent"
    );
}

#[test]
fn a_starved_fill_ring_is_counted_and_recovers() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let config = PortConfig {
            frames: 64,
            mode: Some(mode),
            ..config(&net.near)
        };
        let (_port, mut queue) = open(&config);
        let far = Packet::open(&net.far);
        for number in 0..200 {
            far.send(&frame(number, 100)).unwrap();
        }
        let got = receive(&mut queue, 32);
        assert!(
            got == (0..32).map(|number| frame(number, 100)).collect::<Vec<_>>(),
            "{mode}"
        );
        let statistics = queue.statistics().unwrap();
        let starved = statistics.rx_fill_ring_empty_descs;
        assert!(starved + statistics.rx_dropped > 0, "{statistics:?}");

        for number in 300..320 {
            far.send(&frame(number, 100)).unwrap();
        }
        let got = receive(&mut queue, 20);
        assert!(
            got == (300..320)
                .map(|number| frame(number, 100))
                .collect::<Vec<_>>(),
            "{mode}"
        );
        assert!(queue.accounting().is_balanced());
    }
}

#[test]
fn frames_of_impossible_lengths_are_refused() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&config(&net.near));
    for (length, error) in [
        (0, SendError::TooShort),
        (13, SendError::TooShort),
        (4097, SendError::TooLong),
        (usize::MAX, SendError::TooLong),
    ] {
        assert_eq!(
            queue.send(length, |_| unreachable!()),
            Err(error),
            "{length}"
        );
    }
    assert_eq!(queue.max_frame(), 4096);
    assert_eq!(queue.counters().tx_packets, 0);
}

#[test]
fn frames_over_the_mtu_are_lost_and_counted_and_the_rest_goes() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&config(&net.near));
    let far = Packet::open(&net.far);
    for number in 0..100 {
        send(
            &mut queue,
            &frame(number, if number % 2 == 0 { 100 } else { 3000 }),
        )
        .unwrap();
    }
    queue.flush().unwrap();
    for number in (0..100).step_by(2) {
        assert!(
            far.receive().as_deref() == Some(&frame(number, 100)),
            "frame {number}"
        );
    }
    assert_eq!(queue.counters().tx_lost, 50);
    let accounting = queue.accounting();
    assert_eq!(
        accounting.free + accounting.completion,
        2048,
        "{accounting:?}"
    );
}

#[test]
fn with_the_peer_down_frames_are_lost_and_counted() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&config(&net.near));
    ip(&format!("link set dev {} down", net.far));
    for number in 0..100 {
        send(&mut queue, &frame(number, 100)).unwrap();
    }
    queue.flush().unwrap();
    assert_eq!(queue.counters().tx_lost, 100);
    assert_eq!(queue.accounting().tx, 0);
    ip(&format!("link set dev {} up", net.far));
    let far = Packet::open(&net.far);
    send(&mut queue, &frame(7, 100)).unwrap();
    queue.flush().unwrap();
    assert!(far.receive().as_deref() == Some(&frame(7, 100)));
}

#[test]
fn under_a_random_load_every_frame_is_accounted_for() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&PortConfig {
        frames: 128,
        ..config(&net.near)
    });
    let far = Packet::open(&net.far);
    let mut random = Random::new(7);
    for step in 0..20_000 {
        match random.below(8) {
            0..=1 => {
                let _ = far.send(&frame(step, 18 + random.below(1400)));
            }
            2..=3 => {
                let _ = send(&mut queue, &frame(step, 18 + random.below(3000)));
            }
            4 => queue.flush().unwrap(),
            5 => {
                let mut left = random.below(20);
                queue.receive(random.below(100), |_| {
                    left = left.saturating_sub(1);
                    if left == 0 {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
            }
            6 => {
                let _ = queue.room();
            }
            _ => {
                if random.below(50) == 0 {
                    queue.discard();
                }
                while far.try_receive().is_some() {}
            }
        }
        let accounting = queue.accounting();
        assert!(accounting.is_balanced(), "step {step}: {accounting:?}");
        assert_eq!(accounting.total, 128);
    }
    queue.flush().unwrap();
    queue.discard();
    let counters = queue.counters();
    assert_eq!(counters.invalid_descriptors, 0);
    assert!(
        counters.tx_packets > 1000 && counters.rx_packets > 1000,
        "{counters:?}"
    );
}
