//! Datagrams of DHCP servers, whose checksum is completed whatever the guest says that it takes: clients of DHCP
//! read whole packets from a packet socket, before there is an address, and many look at the checksum without asking the kernel
//! whether it is one (`PACKET_AUXDATA`). They would drop what a server on this host sends.

use super::{
    header::udp,
    packet::{Network, Packet, Transport},
};

/// Ports of server and client (RFC 2131, section 4.1; RFC 8415, section 7.2).
const PORTS_V4: (u16, u16) = (67, 68);
const PORTS_V6: (u16, u16) = (547, 546);

/// Whether `packet`, whose headers are in `start`, comes from a server or goes to a client.
#[must_use]
pub fn is_for_client(start: &[u8], packet: &Packet) -> bool {
    let (server, client) = match packet.network {
        Network::V4 => PORTS_V4,
        Network::V6 => PORTS_V6,
    };
    let at = packet.transport_start;
    packet.transport == Transport::Udp
        && (udp::SOURCE.number(start, at) == Some(server)
            || udp::DESTINATION.number(start, at) == Some(client))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::frames::FrameSpec;

    #[test]
    fn datagrams_of_servers_and_to_clients_are_known_by_their_ports() {
        for (v6, udp, ports, known) in [
            (false, true, [67, 68], true),
            // A relay, or a server to it.
            (false, true, [67, 67], true),
            (false, true, [67, 40_000], true),
            (false, true, [40_000, 68], true),
            (false, true, [68, 67], false),
            (false, true, [547, 546], false),
            (false, false, [67, 68], false),
            (true, true, [547, 546], true),
            (true, true, [40_000, 546], true),
            (true, true, [547, 547], true),
            (true, true, [546, 547], false),
            (true, true, [67, 68], false),
            (true, false, [547, 546], false),
        ] {
            for tags in [vec![], vec![(0x8100, 5)], vec![(0x88a8, 7), (0x8100, 8)]] {
                let mut spec = FrameSpec::tcp(v6, vec![0; 300]);
                (spec.udp, spec.ports, spec.tags) = (udp, ports, tags);
                let frame = spec.build_partial();
                let packet = Packet::parse(&frame).unwrap();
                assert_eq!(is_for_client(&frame, &packet), known, "{spec:?}");
            }
        }
    }
}
