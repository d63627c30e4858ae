//! Frames in and out, by content, in both modes.

use std::{
    ops::ControlFlow,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use net_afxdp::{AttachMode, LinkMonitor, Port, PortConfig, Queue, SendError};
use rustix::event::PollFlags;

use crate::{
    net::Net,
    packet::{PATIENCE, Packet, frame, on_the_wire, wait},
};

pub(crate) const MODES: [AttachMode; 2] = [AttachMode::Native, AttachMode::Skb];

pub(crate) fn config(ifname: &str) -> PortConfig {
    PortConfig {
        ifname: ifname.to_owned(),
        ..PortConfig::default()
    }
}

/// Opens the interface's first queue.
pub(crate) fn open(config: &PortConfig) -> (Port, Queue) {
    let mut port = Port::open(config).unwrap_or_else(|error| panic!("{error}"));
    let queue = port.take_queues().remove(0);
    (port, queue)
}

/// Receives until `count` frames are there.
pub(crate) fn receive(queue: &mut Queue, count: usize) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut frames = Vec::new();
    while frames.len() < count && Instant::now() < deadline {
        let taken = queue.receive(count - frames.len(), |fragments| {
            frames.push(fragments.concat());
            ControlFlow::Continue(())
        });
        if taken == 0 {
            wait(queue.as_fd(), PollFlags::IN);
        }
    }
    frames
}

/// Queues a frame.
pub(crate) fn send(queue: &mut Queue, frame: &[u8]) -> Result<(), SendError> {
    let mut rest = frame;
    queue.send(frame.len(), |fragment| {
        let (bytes, after) = rest.split_at(fragment.len());
        fragment.copy_from_slice(bytes);
        rest = after;
    })
}

/// Lengths to try: short ones, odd ones, the longest of an MTU of 1500.
fn lengths() -> impl Iterator<Item = usize> {
    [18, 60, 61, 64, 65, 127, 128, 1000, 1513, 1514]
        .into_iter()
        .cycle()
}

#[test]
fn what_arrives_is_received_whole_and_in_order() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let (port, mut queue) = open(&PortConfig {
            mode: Some(mode),
            ..config(&net.near)
        });
        assert_eq!(port.mode(), mode);
        assert!(!queue.zero_copy());
        let far = Packet::open(&net.far);
        for (number, length) in (0..500).zip(lengths()) {
            far.send(&frame(number, length)).unwrap();
            if number % 50 == 49 {
                let got = receive(&mut queue, 50);
                let sent: Vec<_> = (number - 49..)
                    .zip(lengths())
                    .take(50)
                    .map(|(n, l)| frame(n, l))
                    .collect();
                assert!(
                    got == sent,
                    "{mode}: up to frame {number}: {} came",
                    got.len()
                );
            }
        }
        assert_eq!(queue.counters().rx_packets, 500);
        assert_eq!(queue.counters().invalid_descriptors, 0);
        assert!(queue.accounting().is_balanced(), "{:?}", queue.accounting());
    }
}

#[test]
fn what_is_sent_arrives_whole_and_in_order() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let (_port, mut queue) = open(&PortConfig {
            mode: Some(mode),
            ..config(&net.near)
        });
        let far = Packet::open(&net.far);
        for (number, length) in (0..500).zip(lengths()) {
            send(&mut queue, &frame(number, length)).unwrap();
            if number % 50 == 49 {
                assert!(far.try_receive().is_none(), "sent before flush");
                queue.flush().unwrap();
                for (number, length) in (number - 49..=number).zip(lengths()) {
                    let got = far.receive().expect("a frame");
                    let sent = on_the_wire(frame(number, length));
                    assert!(got == sent, "{mode}: frame {number}");
                }
            }
        }
        let counters = queue.counters();
        assert_eq!((counters.tx_packets, counters.tx_lost), (500, 0));
        assert_eq!(queue.statistics().unwrap().tx_invalid_descs, 0);
        assert!(queue.accounting().is_balanced(), "{:?}", queue.accounting());
    }
}

/// On veth there is no card to poll, and it must not matter. The kernel takes the options there too.
#[test]
fn a_queue_that_is_busy_polled_carries_the_same() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let (_port, mut queue) = open(&PortConfig {
            mode: Some(mode),
            ..config(&net.near)
        });
        queue.set_busy_poll(Duration::from_micros(50)).unwrap();
        let far = Packet::open(&net.far);
        for (number, length) in (0..200).zip(lengths()) {
            far.send(&frame(number, length)).unwrap();
            let got = receive(&mut queue, 1);
            assert!(got == [frame(number, length)], "{mode}: frame {number}");
            send(&mut queue, &frame(number, length)).unwrap();
            queue.flush().unwrap();
            let sent = on_the_wire(frame(number, length));
            assert!(far.receive() == Some(sent), "{mode}");
        }
        assert!(queue.accounting().is_balanced(), "{:?}", queue.accounting());
    }
}

#[test]
fn a_burst_longer_than_the_kernels_budget_is_sent_by_one_flush() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&config(&net.near));
    let far = Packet::open(&net.far);
    assert_eq!(queue.room(), 2048);
    for number in 0..2048 {
        send(&mut queue, &frame(number, 64)).unwrap();
    }
    assert_eq!(queue.room(), 0);
    assert_eq!(send(&mut queue, &frame(0, 64)), Err(SendError::Full));
    queue.flush().unwrap();
    for number in 0..2048 {
        assert!(
            far.receive().as_deref() == Some(&frame(number, 64)),
            "frame {number}"
        );
    }
    assert_eq!(queue.room(), 2048);
}

#[test]
fn a_queue_can_be_served_by_another_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<Port>();
    assert_send::<LinkMonitor>();
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&config(&net.near));
    let far = Packet::open(&net.far);
    // It stays in the network namespace that it was opened in.
    let thread = std::thread::spawn(move || {
        let got = receive(&mut queue, 1);
        send(&mut queue, &got[0]).unwrap();
        queue.flush().unwrap();
        got
    });
    far.send(&frame(1, 64)).unwrap();
    assert!(far.receive().as_deref() == Some(&frame(1, 64)));
    assert!(thread.join().unwrap() == [frame(1, 64)]);
}

#[test]
fn two_ports_talk_to_each_other() {
    let Some(net) = Net::new() else { return };
    let (_near, mut near) = open(&config(&net.near));
    let (_far, mut far) = open(&config(&net.far));
    for round in 0..100 {
        let frames: Vec<_> = (0..200)
            .map(|n| frame(round * 1000 + n, 60 + n as usize))
            .collect();
        frames
            .iter()
            .for_each(|frame| send(&mut near, frame).unwrap());
        near.flush().unwrap();
        assert!(receive(&mut far, 200) == frames, "round {round}");
        frames
            .iter()
            .for_each(|frame| send(&mut far, frame).unwrap());
        far.flush().unwrap();
        assert!(receive(&mut near, 200) == frames, "round {round}");
    }
    assert!(near.accounting().is_balanced() && far.accounting().is_balanced());
}

#[test]
fn a_frame_that_is_not_taken_stays() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&config(&net.near));
    let far = Packet::open(&net.far);
    for number in 0..10 {
        far.send(&frame(number, 100)).unwrap();
    }
    assert_eq!(receive(&mut queue, 3).len(), 3);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let taken = queue.receive(usize::MAX, |fragments| {
            seen.push(fragments.concat());
            ControlFlow::Break(())
        });
        assert_eq!(taken, 0);
    }
    assert!(seen.iter().all(|bytes| *bytes == frame(3, 100)));
    assert_eq!(queue.accounting().rx, 7);
    let rest = receive(&mut queue, 7);
    assert!(rest == (3..10).map(|number| frame(number, 100)).collect::<Vec<_>>());
    assert!(queue.accounting().is_balanced());
}

#[test]
fn a_budget_is_kept_and_the_rest_can_be_discarded() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&config(&net.near));
    let far = Packet::open(&net.far);
    for number in 0..20 {
        far.send(&frame(number, 100)).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while queue.accounting().rx < 20 && Instant::now() < deadline {
        wait(queue.as_fd(), PollFlags::IN);
    }
    assert_eq!(queue.receive(0, |_| ControlFlow::Continue(())), 0);
    assert_eq!(queue.receive(5, |_| ControlFlow::Continue(())), 5);
    assert_eq!(queue.discard(), 15);
    assert_eq!(queue.discard(), 0);
    let counters = queue.counters();
    assert_eq!(
        (
            counters.rx_packets,
            counters.rx_bytes,
            counters.rx_discarded
        ),
        (5, 500, 15)
    );
    assert!(queue.accounting().is_balanced());
}

#[test]
fn a_received_frame_shows_nothing_of_others() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&PortConfig {
        frames: 64,
        ..config(&net.near)
    });
    let far = Packet::open(&net.far);
    // Each chunk had a long frame before it gets a short one.
    for number in 0..96 {
        let sent = frame(number, if number < 64 { 1514 } else { 18 });
        far.send(&sent).unwrap();
        assert!(receive(&mut queue, 1) == [sent], "frame {number}");
    }
}
