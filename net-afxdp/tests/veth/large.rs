//! Frames of several chunks: by content both ways, their memory accounted for, and what happens
//! where they can't be had.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use net_afxdp::{AttachMode, Port, PortConfig, Queue, SendError};

use crate::{
    net::{Net, ip, kernel_can, kernel_is_new, skipped},
    packet::{Packet, Random, frame, on_the_wire},
    traffic::{MODES, config, open, receive, send},
};

/// A veth pair whose ends have this MTU.
fn net(mtu: u32) -> Option<Net> {
    let net = Net::new()?;
    set_mtu(&net, mtu);
    Some(net)
}

fn set_mtu(net: &Net, mtu: u32) {
    ip(&format!("link set dev {} mtu {mtu}", net.near));
    ip(&format!("link set dev {} mtu {mtu}", net.far));
}

/// Lengths around the ends of chunks, in both directions, up to an MTU of 9000.
const LENGTHS: [usize; 14] = [
    18, 60, 1514, 3839, 3840, 3841, 4095, 4096, 4097, 7680, 7681, 8192, 8193, 9014,
];

fn balanced(queue: &Queue) -> bool {
    assert_eq!(queue.counters().invalid_descriptors, 0);
    queue.accounting().is_balanced()
}

#[test]
fn large_frames_pass_whole_and_in_order_both_ways() {
    let Some(net) = net(9000) else { return };
    if !kernel_can() {
        return;
    }
    for mode in MODES {
        let (port, mut queue) = open(&PortConfig {
            mode: Some(mode),
            ..config(&net.near)
        });
        assert_eq!((port.mode(), port.mtu()), (mode, 9000));
        assert!(queue.multi_buffer() && queue.max_frame() >= 9018);
        let far = Packet::open(&net.far);
        for round in 0..10 {
            let sent: Vec<_> = (round * 100..)
                .zip(LENGTHS)
                .map(|(n, l)| frame(n, l))
                .collect();
            for frame in &sent {
                far.send(frame).unwrap();
            }
            let got = receive(&mut queue, sent.len());
            assert!(got == sent, "{mode}: {} came", got.len());
            for frame in &sent {
                send(&mut queue, frame).unwrap();
            }
            queue.flush().unwrap();
            for frame in &sent {
                let got = far.receive().expect("a frame");
                let sent = on_the_wire(frame.clone());
                assert!(got == sent, "{mode}: {} bytes sent", frame.len());
            }
        }
        let total = |lengths: [usize; 14]| 10 * lengths.iter().sum::<usize>() as u64;
        let counters = queue.counters();
        assert_eq!(counters.rx_bytes, total(LENGTHS));
        assert_eq!(counters.tx_bytes, total(LENGTHS.map(|it| it.max(60))));
        assert_eq!((counters.rx_too_long, counters.tx_lost), (0, 0));
        assert_eq!(queue.statistics().unwrap().tx_invalid_descs, 0);
        assert!(balanced(&queue), "{:?}", queue.accounting());
    }
}

#[test]
fn the_largest_mtu_there_is_works_both_ways() {
    let Some(net) = net(65535) else { return };
    if !kernel_can() {
        return;
    }
    for mode in MODES {
        let (port, mut queue) = open(&PortConfig {
            frames: 256,
            mode: Some(mode),
            ..config(&net.near)
        });
        assert_eq!(port.mtu(), 65535);
        let far = Packet::open(&net.far);
        for (number, length) in (0..).zip([65549, 60, 40_000, 65549]) {
            let sent = frame(number, length);
            send(&mut queue, &sent).unwrap();
            queue.flush().unwrap();
            let got = far.receive().expect("a frame");
            assert!(got == sent, "{mode}: {length} bytes sent");
            far.send(&sent).unwrap();
            assert!(receive(&mut queue, 1) == [sent], "{mode}: {length} bytes");
        }
        let longest = queue.max_frame();
        assert_eq!(queue.send(longest + 1, |_| {}), Err(SendError::TooLong));
        assert!(balanced(&queue), "{:?}", queue.accounting());
    }
}

#[test]
fn ports_exchange_bursts_of_mixed_lengths() {
    let Some(net) = net(9000) else { return };
    if !kernel_can() {
        return;
    }
    let (_near, mut near) = open(&config(&net.near));
    let (_far, mut far) = open(&config(&net.far));
    let mut random = Random::new(3);
    for round in 0..20 {
        let frames: Vec<_> = (0..150)
            .map(|n| frame(round * 1000 + n, 60 + random.below(8955)))
            .collect();
        frames.iter().for_each(|it| send(&mut near, it).unwrap());
        near.flush().unwrap();
        assert!(receive(&mut far, 150) == frames, "round {round}");
        frames.iter().for_each(|it| send(&mut far, it).unwrap());
        far.flush().unwrap();
        assert!(receive(&mut near, 150) == frames, "round {round}");
    }
    assert!(balanced(&near) && balanced(&far));
}

#[test]
fn a_frame_is_queued_whole_or_not_at_all() {
    let Some(net) = net(9000) else { return };
    if !kernel_can() {
        return;
    }
    let (_port, mut queue) = open(&PortConfig {
        frames: 64,
        ..config(&net.near)
    });
    let far = Packet::open(&net.far);
    for _ in 0..3 {
        // 32 chunks: ten times three, and two are left.
        assert_eq!(queue.room(), 10);
        for number in 0..10 {
            send(&mut queue, &frame(number, 9014)).unwrap();
        }
        assert_eq!(queue.room(), 0);
        assert_eq!(send(&mut queue, &frame(0, 9014)), Err(SendError::Full));
        assert_eq!(queue.accounting().free, 2);
        send(&mut queue, &frame(10, 5000)).unwrap();
        assert_eq!(send(&mut queue, &frame(0, 60)), Err(SendError::Full));
        let full = queue.send(9014, |_| unreachable!("there is no memory to write to"));
        assert_eq!(full, Err(SendError::Full));
        queue.flush().unwrap();
        for number in 0..11 {
            let length = if number == 10 { 5000 } else { 9014 };
            assert!(far.receive().as_deref() == Some(&frame(number, length)));
        }
    }
    assert!(balanced(&queue));
}

#[test]
fn a_panic_amid_a_large_frame_loses_no_memory() {
    let Some(net) = net(9000) else { return };
    if !kernel_can() {
        return;
    }
    let (_port, mut queue) = open(&PortConfig {
        frames: 64,
        ..config(&net.near)
    });
    let far = Packet::open(&net.far);
    for number in 0..50 {
        let mut calls = 0;
        let result = catch_unwind(AssertUnwindSafe(|| {
            queue.send(9014, |_| {
                calls += 1;
                assert!(calls < 3, "expected: in a send of the test");
            })
        }));
        assert!(result.is_err());
        assert_eq!(queue.room(), 10);

        far.send(&frame(number, 9014)).unwrap();
        assert_eq!(peek(&mut queue), frame(number, 9014), "not taken");
        let result = catch_unwind(AssertUnwindSafe(|| {
            queue.receive(1, |_| panic!("expected: in a receive of the test"));
        }));
        assert!(result.is_err());
        assert_eq!(queue.accounting().rx, 0, "it counts as taken");
    }
    assert!(balanced(&queue));
    assert!(far.try_receive().is_none());
}

/// Waits for a frame, and leaves it where it is.
fn peek(queue: &mut Queue) -> Vec<u8> {
    let mut seen = Vec::new();
    for _ in 0..2000 {
        let taken = queue.receive(1, |fragments| {
            seen = fragments.concat();
            ControlFlow::Break(())
        });
        assert_eq!(taken, 0);
        if !seen.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    seen
}

#[test]
fn a_flood_of_large_frames_starves_the_fill_ring_and_passes() {
    let Some(net) = net(9000) else { return };
    if !kernel_can() {
        return;
    }
    for mode in MODES {
        let (_port, mut queue) = open(&PortConfig {
            frames: 64,
            mode: Some(mode),
            ..config(&net.near)
        });
        let far = Packet::open(&net.far);
        for number in 0..200 {
            far.send(&frame(number, 9014)).unwrap();
        }
        // 32 chunks, three a frame: the rest never gets half a frame.
        let got = receive(&mut queue, 10);
        assert!(got == (0..10).map(|n| frame(n, 9014)).collect::<Vec<_>>());
        let lost = queue.statistics().unwrap();
        assert!(
            lost.rx_dropped + lost.rx_fill_ring_empty_descs > 0,
            "{mode}: {lost:?}"
        );
        assert!(balanced(&queue), "{:?}", queue.accounting());
        // What was on its way in the kernel may still come, but nothing in between is torn.
        for number in 300..310 {
            far.send(&frame(number, 9014)).unwrap();
        }
        let mut got = receive(&mut queue, 1);
        while got.last() != Some(&frame(309, 9014)) {
            let more = receive(&mut queue, 1);
            assert_eq!(more.len(), 1, "{mode}");
            got.extend(more);
        }
        for bytes in &got {
            let number = u32::from_be_bytes([bytes[14], bytes[15], bytes[16], bytes[17]]);
            assert!(*bytes == frame(number, 9014), "{mode}: frame {number}");
        }
        assert!(balanced(&queue), "{:?}", queue.accounting());
    }
}

#[test]
fn under_a_random_load_of_all_lengths_every_frame_is_accounted_for() {
    let Some(net) = net(9000) else { return };
    if !kernel_can() {
        return;
    }
    for mode in MODES {
        let (_port, mut queue) = open(&PortConfig {
            frames: 128,
            mode: Some(mode),
            ..config(&net.near)
        });
        let far = Packet::open(&net.far);
        let mut random = Random::new(11);
        for step in 0..6000 {
            let length = 18 + random.below(8996);
            match random.below(7) {
                0..=1 => drop(far.send(&frame(step, length))),
                2..=3 => drop(send(&mut queue, &frame(step, length + random.below(2000)))),
                4 => queue.flush().unwrap(),
                5 => {
                    let mut left = 1 + random.below(20);
                    queue.receive(random.below(40), |fragments| {
                        let bytes = fragments.concat();
                        let number =
                            u32::from_be_bytes([bytes[14], bytes[15], bytes[16], bytes[17]]);
                        assert!(
                            bytes == frame(number, bytes.len()),
                            "frame {number} is torn"
                        );
                        left -= 1;
                        if left == 0 {
                            ControlFlow::Break(())
                        } else {
                            ControlFlow::Continue(())
                        }
                    });
                }
                _ => {
                    if random.below(50) == 0 {
                        queue.discard();
                    }
                    while far.try_receive().is_some() {}
                }
            }
            assert!(balanced(&queue), "step {step}: {:?}", queue.accounting());
        }
        let counters = queue.counters();
        assert!(
            counters.tx_packets > 500 && counters.rx_packets > 500,
            "{counters:?}"
        );
        // Over the MTU.
        assert!(
            counters.tx_lost > 0 && counters.rx_too_long == 0,
            "{counters:?}"
        );
    }
}

/// In skb mode the MTU says nothing of what may come: frames of several chunks are asked for where the kernel has them, and
/// else such frames are counted. In native mode none can come.
#[test]
fn frames_longer_than_a_chunk_come_whole_or_are_counted_in_skb_mode() {
    let Some(net) = net(1500) else { return };
    let (_, queue) = open(&PortConfig {
        mode: Some(AttachMode::Native),
        ..config(&net.near)
    });
    assert_eq!(
        (queue.multi_buffer(), queue.max_received_frame()),
        (false, 3840)
    );
    drop(queue);
    let (port, mut queue) = open(&PortConfig {
        mode: Some(AttachMode::Skb),
        ..config(&net.near)
    });
    let whole = kernel_is_new();
    assert_eq!((port.mtu(), queue.multi_buffer()), (1500, whole));
    let longest = if whole { 18 * 3840 } else { 3840 };
    assert_eq!(
        (queue.max_frame(), queue.max_received_frame()),
        (4096, longest)
    );
    set_mtu(&net, 9000);
    let far = Packet::open(&net.far);
    let sent: Vec<_> = (0..20)
        .map(|number| frame(number, if number % 2 == 0 { 9014 } else { 3840 }))
        .collect();
    for frame in &sent {
        far.send(frame).unwrap();
    }
    let mut want = sent;
    want.retain(|frame| whole || frame.len() == 3840);
    assert!(receive(&mut queue, want.len()) == want);
    let dropped = 20 - want.len() as u64;
    assert_eq!(queue.statistics().unwrap().rx_dropped, dropped);
    assert_eq!(send(&mut queue, &frame(1, 4097)), Err(SendError::TooLong));
    assert!(balanced(&queue));
}

#[test]
fn a_kernel_without_multi_buffer_says_which_mtu_works() {
    let Some(net) = net(9000) else { return };
    let port = Port::open(&config(&net.near));
    let mut port = port.unwrap_or_else(|error| panic!("{error}"));
    if kernel_is_new() {
        assert_eq!(port.mtu(), 9000);
        skipped("the MTU without multi-buffer: this kernel has it");
        return;
    }
    assert_eq!(port.mtu(), 3822);
    let mut queue = port.take_queues().remove(0);
    assert!(!queue.multi_buffer());
    let far = Packet::open(&net.far);
    for number in 0..20 {
        // The header and a VLAN tag, too.
        let length = if number % 2 == 0 { 9014 } else { 3822 + 18 };
        far.send(&frame(number, length)).unwrap();
    }
    let odd: Vec<_> = (0..20)
        .filter(|n| n % 2 == 1)
        .map(|n| frame(n, 3840))
        .collect();
    assert!(receive(&mut queue, 10) == odd);
    send(&mut queue, &odd[0]).unwrap();
    queue.flush().unwrap();
    assert!(far.receive().as_deref() == Some(&odd[0]));
    assert!(balanced(&queue));
}
