//! Frames of a guest that are shorter than Ethernet's shortest, on a real veth: the far end gets 60 bytes, zeros behind the guest's.

use devices::testing::frames::{FrameSpec, assert_right};
use net_afxdp::{AttachMode, PortConfig, TxMetadata};

use crate::{
    afxdp::{open, open_config, veth},
    guest::*,
    offload_guest::*,
    offload_kernel::ethtool,
};

#[test]
fn short_frames_reach_the_wire_with_zeros_behind_them() {
    let Some((near, far)) = veth() else { return };
    for (mode, tx_metadata) in [
        (AttachMode::Native, TxMetadata::Off),
        (AttachMode::Skb, TxMetadata::Off),
        (AttachMode::Native, TxMetadata::On),
    ] {
        if tx_metadata == TxMetadata::On && !kernel_has_metadata() {
            eprintln!("SKIPPED: no TX metadata before Linux 6.8");
            continue;
        }
        let config = PortConfig {
            ifname: near.clone(),
            mode: Some(mode),
            frames: 512,
            tx_metadata,
            ..PortConfig::default()
        };
        let (_port, mut backends) = open_config(&config);
        let (_far_port, wire) = open(far.clone(), mode);
        // The kernel then meets what it is asked for, as a card would.
        ethtool(&format!("-K {near} tx off"));
        let mut guest = NetGuest::plug_on("tshort", backends.remove(0), wire);
        guest.boot();
        // All frame memory holds something else.
        for _ in 0..600 {
            guest.transmit(&[0xa5; 200]);
            guest.sent();
        }
        let before = guest.control.counters();
        let mut bytes = 0;
        for len in 14..60 {
            let frame = pattern(len, len);
            guest.transmit(&frame);
            assert_eq!(guest.sent(), [&frame[..], &vec![0; 60 - len]].concat());
            bytes += len as u64;
        }
        // Datagrams, and a TCP segment, with the checksum left to the card.
        for (udp, len) in (0..18)
            .map(|len| (true, len))
            .chain([(false, 0), (false, 5)])
        {
            let mut spec = FrameSpec::tcp(false, vec![0xc3; len]);
            spec.udp = udp;
            let frame = spec.build_partial();
            guest.queue_frame(NetHeader::partial(&spec), &frame, 4096);
            guest.tx.wait_used();
            let mut got = guest.sent();
            assert_eq!(got.len(), 60);
            assert!(got.split_off(frame.len()).iter().all(|&byte| byte == 0));
            assert_right(&got, spec.network_start(), spec.transport_start());
            bytes += frame.len() as u64;
        }
        let counters = guest.control.counters();
        // What the guest sent, not what went out.
        assert_eq!(counters.tx_bytes - before.tx_bytes, bytes);
        let asked = counters.tx_checksums_offloaded > 0;
        assert_eq!(asked, tx_metadata == TxMetadata::On);
        guest.assert_sound();
    }
}

fn kernel_has_metadata() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|it| it.parse::<u32>());
    let mut number = || numbers.next().unwrap().unwrap();
    (number(), number()) >= (6, 8)
}
