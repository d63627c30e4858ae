//! Checksums that are completed whatever the guest takes: in tunnels, of SCTP and of DHCP, in fragments and buffers of any size.

use devices::{
    testing::{frames::FrameSpec, tunnels::Tunnel},
    virtio::net::loopback::Loopback,
};

use crate::{guest::*, offload_guest::*};

const LARGE: u32 = 70_000;

/// Fragments of at least 150 bytes: all headers are in the first, and checksums on both sides of a seam of buffers.
#[test]
fn frames_in_tunnels_arrive_with_all_of_their_checksums() {
    for (fragment, room, csum) in [
        (MAX_FRAME, 2048, true),
        (MAX_FRAME, 61, true),
        (MAX_FRAME, 60, false),
        (190, 61, false),
        (191, 2048, true),
    ] {
        let (near, wire) = Loopback::pair(MAX_FRAME).unwrap();
        let mut guest = NetGuest::plug_on("tohidden", near.with_fragments(fragment), wire);
        if !csum {
            guest.features &= VERSION_1 | MRG_RXBUF | EVENT_IDX;
        }
        let mut count = 0;
        for tunnel in Tunnel::all() {
            guest.boot();
            for inner in specs(501) {
                let (whole, partial) = (inner.build(), inner.build_partial());
                let want = tunnel.carry(&whole, &inner);
                let frame = tunnel.with_inner(&whole, &partial, &inner);
                for _ in 0..(frame.len() + HEADER).div_ceil(room as usize) {
                    guest.post(room);
                }
                guest.inject(&frame);
                assert_eq!(guest.received(), want, "{tunnel:?} {inner:?}");
                count += 1;
            }
        }
        assert_eq!(guest.control.counters().rx_checksums, count);
        guest.assert_sound();
    }
}

/// As frames of several datagrams they would have one checksum for all, to be done by the guest.
#[test]
fn what_is_completed_here_is_never_put_together() {
    let mut guest = NetGuest::start("tohidone");
    let mut dhcp = FrameSpec::udp(false, pattern(300, 1));
    dhcp.ports = [67, 68];
    let inner = FrameSpec::tcp(false, pattern(250, 2));
    let tunnel = Tunnel::all().into_iter().find(Tunnel::carries_ethernet);
    let tunnel = tunnel.unwrap();
    let tunnelled = tunnel.with_inner(&inner.build(), &inner.build_partial(), &inner);
    let ordinary = FrameSpec::udp(false, pattern(300, 1));
    for (frame, want, together) in [
        (dhcp.build_partial(), dhcp.build(), false),
        (tunnelled, tunnel.carry(&inner.build(), &inner), false),
        (ordinary.build_partial(), ordinary.build_partial(), true),
    ] {
        guest.boot();
        // IPv4 IDs may stay the same where "don't fragment" is set.
        guest.inject_burst(&vec![frame; 3], &[LARGE; 3]);
        if together {
            let (header, whole) = guest.received_with_header();
            assert_eq!((header.gso_type, header.gso_size), (5, 300));
            assert_eq!(whole.len(), want.len() + 600);
            continue;
        }
        for _ in 0..3 {
            let (header, got) = guest.received_with_header();
            assert_eq!((header.flags, header.gso_type), (0, 0));
            assert_eq!(got, want);
        }
    }
}
