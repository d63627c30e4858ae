use super::*;
use crate::testing::frames::FrameSpec;

fn places(spec: &FrameSpec) -> (usize, usize, usize) {
    (
        spec.network_start(),
        spec.transport_start(),
        spec.payload_start(),
    )
}

fn found(packet: &Packet) -> (usize, usize, usize) {
    (
        packet.network_start,
        packet.transport_start,
        packet.payload_start,
    )
}

/// All protocols, with and without what may lie between them.
pub(in super::super) fn specs() -> Vec<FrameSpec> {
    let mut specs = Vec::new();
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        for tags in [
            vec![],
            vec![(0x8100, 5)],
            vec![(0x88a8, 7), (0x8100, 8), (0x9100, 9)],
        ] {
            for options in [0usize, 1, 10] {
                let mut spec = FrameSpec::tcp(v6, (0..100).collect());
                spec.udp = udp;
                spec.tags.clone_from(&tags);
                spec.tcp_options = vec![1; 4 * options];
                if v6 {
                    // Hop-by-hop, destination options, routing to nowhere further.
                    let headers = [(0, vec![1; 6]), (60, vec![0; 14]), (43, vec![0; 6])];
                    spec.extensions = headers.into_iter().take(options).collect();
                } else {
                    spec.ip_options = vec![1; 4 * options];
                }
                specs.push(spec);
            }
        }
    }
    specs
}

/// The short way for plain packets finds what the long one finds, or leaves it to that; whatever byte is changed, and wherever the frame ends.
#[test]
fn plain_packets_are_what_a_search_finds() {
    let mut plain_ones = 0;
    for spec in specs() {
        let frame = spec.build();
        for len in 0..frame.len() {
            let cut = &frame[..len];
            assert_eq!(
                Packet::parse(cut),
                Packet::search(cut),
                "{spec:?}, {len} bytes"
            );
        }
        for at in 0..spec.payload_start() {
            let mut changed = frame.clone();
            for value in 0..=u8::MAX {
                changed[at] = value;
                assert_eq!(
                    Packet::parse(&changed),
                    Packet::search(&changed),
                    "{spec:?}, {value:#x} at {at}"
                );
                plain_ones += usize::from(plain(&changed).is_some());
            }
        }
    }
    assert!(plain_ones > 0, "there are plain packets among them");
}

/// 20: VLAN stacks, IPv4 options and IPv6 extension headers are passed over.
#[test]
fn headers_are_found_behind_everything() {
    for spec in specs() {
        let frame = spec.build();
        let packet = Packet::parse(&frame).unwrap();
        assert_eq!(found(&packet), places(&spec), "{spec:?}");
        assert_eq!(packet.end, frame.len());
        assert_eq!(packet.network == Network::V6, spec.v6);
        assert_eq!(packet.transport == Transport::Udp, spec.udp);
        let options = !spec.ip_options.is_empty() || !spec.extensions.is_empty();
        assert_eq!((packet.has_options, packet.is_routed), (options, false));
        assert_eq!(packet.checksum_offset(), spec.checksum_offset());
        let at = packet.checksum_start();
        let field = u16::from_be_bytes([frame[at], frame[at + 1]]);
        assert_eq!(packet.checksum(&frame), Some(field));
    }
}

/// 20: a frame that is cut anywhere in its headers is no packet; cut in the payload it is one.
#[test]
fn headers_that_are_cut_are_refused() {
    for spec in specs() {
        let frame = spec.build();
        for len in 0..spec.payload_start() {
            assert_eq!(
                Packet::parse(&frame[..len]),
                Err(PacketError::Truncated),
                "{len}"
            );
        }
        assert!(Packet::parse(&frame[..spec.payload_start()]).is_ok());
    }
}

/// 20: IHL < 5, data offset < 5, versions that are not the EtherType's.
#[test]
fn impossible_headers_are_refused() {
    let frame = FrameSpec::tcp(false, vec![0; 100]).build();
    let with = |at: usize, value: u8| {
        let mut frame = frame.clone();
        frame[at] = value;
        Packet::parse(&frame)
    };
    for ihl in 0..5 {
        assert_eq!(with(14, 0x40 | ihl), Err(PacketError::Malformed("IPv4")));
        assert_eq!(with(46, ihl << 4), Err(PacketError::Malformed("TCP")));
    }
    assert_eq!(with(14, 0x65), Err(PacketError::Malformed("IPv4")));
    assert_eq!(with(12, 0x81), Err(PacketError::EtherType(140)), "a tag");
    assert_eq!(with(13, 0x06), Err(PacketError::EtherType(0x0806)), "ARP");
    assert_eq!(with(23, 132), Err(PacketError::Protocol(132)), "SCTP");
    let mut frame = FrameSpec::tcp(true, vec![0; 10]).build();
    frame[14] = 0x45;
    assert_eq!(Packet::parse(&frame), Err(PacketError::Malformed("IPv6")));
}

#[test]
fn fragments_are_no_packets() {
    for (fragment, is_one) in [
        (0x4000, false),
        (0, false),
        (0x2000, true),
        (1, true),
        (0x4001, true),
    ] {
        let mut spec = FrameSpec::udp(false, vec![0; 20]);
        spec.fragment = fragment;
        let refused = Packet::parse(&spec.build()) == Err(PacketError::Fragment);
        assert_eq!(refused, is_one, "{fragment:#x}");
    }
    let mut spec = FrameSpec::udp(true, vec![0; 20]);
    spec.extensions = vec![(44, vec![0; 6])];
    assert_eq!(Packet::parse(&spec.build()), Err(PacketError::Fragment));
}

/// 20: stacks and chains end somewhere.
#[test]
fn endless_stacks_are_refused() {
    let mut spec = FrameSpec::tcp(false, vec![0; 20]);
    spec.tags = vec![(0x8100, 1); 8];
    assert!(Packet::parse(&spec.build()).is_ok());
    spec.tags = vec![(0x8100, 1); 9];
    assert_eq!(Packet::parse(&spec.build()), Err(PacketError::TooDeep));
    let mut spec = FrameSpec::tcp(true, vec![0; 20]);
    spec.extensions = vec![(60, vec![0; 6]); 8];
    assert!(Packet::parse(&spec.build()).is_ok());
    spec.extensions = vec![(60, vec![0; 6]); 9];
    assert_eq!(Packet::parse(&spec.build()), Err(PacketError::TooDeep));
    // An extension header that is longer than the frame.
    spec.extensions = vec![(60, vec![0; 6])];
    let mut frame = spec.build();
    frame[55] = 0xff;
    assert_eq!(Packet::parse(&frame), Err(PacketError::Truncated));
}

#[test]
fn a_routing_header_hides_the_destination() {
    let mut spec = FrameSpec::tcp(true, vec![0; 20]);
    let mut routing = vec![0; 22];
    (routing[0], routing[1]) = (4, 1);
    spec.extensions = vec![(43, routing)];
    assert!(Packet::parse(&spec.build()).unwrap().is_routed);
}

/// Nearly all packets are such, and the search takes several times as long.
#[test]
fn packets_without_tags_and_options_go_the_short_way() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut spec = FrameSpec::tcp(v6, vec![0; 20]);
        spec.udp = udp;
        assert!(plain(&spec.build()).is_some(), "{spec:?}");
        spec.tags = vec![(0x8100, 1)];
        assert!(plain(&spec.build()).is_none(), "{spec:?}");
    }
}

/// 20: an IP header with nothing behind it is whole; what is missing is what it announces.
#[test]
fn a_frame_that_ends_with_the_ip_header_is_judged_by_its_protocol() {
    const ICMP: u8 = 1;
    for options in [0, 4, 40] {
        let mut spec = FrameSpec::udp(false, vec![]);
        spec.ip_options = vec![1; options];
        let frame = spec.build();
        let mut header = frame[..spec.transport_start()].to_vec();
        assert_eq!(Packet::parse(&header), Err(PacketError::Truncated));
        header[23] = ICMP;
        assert_eq!(Packet::parse(&header), Err(PacketError::Protocol(ICMP)));
        header.pop();
        assert_eq!(Packet::parse(&header), Err(PacketError::Truncated));
    }
}
