//! TX metadata on cards whose drivers have none: what is refused, and what the kernel does instead in copy mode. No card
//! that can be emulated has a driver that completes checksums in zero-copy mode.

use std::{
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use net_afxdp::{ChecksumRequest, PortConfig, Queue, TxMetadata};
use ringwire_tests::{Card, Wire};

use crate::{
    frame::{UDP_CHECKSUM, UDP_START, is_right, partial_frame},
    port::{assert_all_well, open, try_open},
};

fn with_metadata(force_copy: bool) -> PortConfig {
    PortConfig {
        force_copy,
        tx_metadata: TxMetadata::On,
        ..PortConfig::default()
    }
}

fn refusal(wire: &Wire, config: PortConfig) -> String {
    let opened = try_open(wire, true, config).map(drop);
    opened.expect_err("it is refused").to_string()
}

/// Frames whose checksum is left undone by us arrive whole, and with the right one.
fn completes(from: &mut Queue, to: &mut [Queue]) {
    let request = ChecksumRequest {
        start: u16::try_from(UDP_START).unwrap(),
        offset: u16::try_from(UDP_CHECKSUM - UDP_START).unwrap(),
    };
    assert!(from.completes_checksums() && !from.zero_copy());
    for number in 0..200 {
        let sent = partial_frame(71, number);
        from.send_with_checksum(sent.len(), request, |bytes| bytes.copy_from_slice(&sent))
            .expect("there is room");
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut got = None;
        while got.is_none() {
            assert!(Instant::now() < deadline, "{number} did not come");
            from.flush().expect("the link is up");
            for queue in to.iter_mut() {
                queue.receive(64, |fragments| {
                    let frame = fragments.concat();
                    // Others may speak on the wire.
                    if frame.starts_with(&sent[..UDP_CHECKSUM]) {
                        got = Some(frame);
                    }
                    ControlFlow::Continue(())
                });
            }
            thread::yield_now();
        }
        let got = got.unwrap_or_default();
        assert!(is_right(&got), "{number}: {:x?}", &got[..UDP_CHECKSUM + 2]);
        assert_eq!(got[UDP_CHECKSUM + 2..sent.len()], sent[UDP_CHECKSUM + 2..]);
    }
    assert_eq!(from.counters().tx_lost, 0);
}

#[test]
fn a_driver_that_completes_none_is_refused_in_zero_copy_mode() {
    for card in [Card::Igb, Card::VirtioNet] {
        let wire = Wire::of(card);
        let text = refusal(&wire, with_metadata(false));
        assert!(
            text.contains("which is in zero-copy mode, says that it completes no checksums"),
            "{text}"
        );
        // Left to us, it is not asked.
        let (_port, queues) = open(&wire, true, PortConfig::default());
        assert!(queues[0].zero_copy() && !queues[0].completes_checksums());
    }
}

#[test]
fn a_card_in_copy_mode_is_refused_until_the_kernel_completes_them() {
    let wire = Wire::of_cards();
    let text = refusal(&wire, with_metadata(true));
    let fix = format!("`ethtool -K {} tx off`", Wire::IFNAME);
    assert!(
        text.contains("(igb) less than") && text.contains(&fix),
        "{text}"
    );
    wire.near(&format!("ethtool -K {} tx off", Wire::IFNAME));
    let (_near, mut near) = open(&wire, true, with_metadata(true));
    // The addresses differ from frame to frame; there is a queue for each CPU.
    wire.far(&format!("ethtool -X {} equal 1", Wire::PEER_IFNAME));
    let (_far, mut far) = open(&wire, false, PortConfig::default());
    wire.wait_for_carrier();
    completes(&mut near[0], &mut far);
    assert_all_well(near.iter_mut().chain(&mut far));
}

#[test]
fn checksums_are_left_to_virtio_net_in_copy_mode() {
    let wire = Wire::of(Card::VirtioNet);
    let (_near, mut near) = open(&wire, true, with_metadata(true));
    let (_far, mut far) = open(&wire, false, PortConfig::default());
    wire.wait_for_carrier();
    completes(&mut near[0], &mut far);
    assert_all_well(near.iter_mut().chain(&mut far));
}
