//! Errors that come as ICMP reach the program that caused them, both ways, over both versions of IP.

use ringwire_tests::{Guest, Options, Wire};

use crate::offload::{GUEST6, PEER6, boot_with, wirecheck};

/// Nobody listens there.
const CLOSED: u16 = 7;
/// Beyond the far end, by a link with a smaller MTU than the wire's.
const BEYOND: &str = "10.80.0.9";
const SMALL_MTU: u32 = 1280;

/// One datagram is enough to be told; the next call has the error.
fn probe(address: &str) -> String {
    format!("udp-send {address}:{CLOSED} --count 3 --burst 1 --gap 300000")
}

#[test]
fn closed_ports_and_small_links_are_told() {
    let wire = Wire::new();
    let mut guest = boot_with(&wire, Options::new());
    for (peer, own) in [
        (Wire::PEER.to_owned(), Wire::GUEST.to_owned()),
        (format!("[{PEER6}]"), format!("[{GUEST6}]")),
    ] {
        let output = guest.run(&format!("wirecheck {}", probe(&peer)));
        assert_ne!(output.status, 0, "{}", output.text);
        assert!(
            output.text.contains("Connection refused"),
            "{}",
            output.text
        );
        let output = wire.far_fails(&wirecheck(&probe(&own)));
        assert!(output.contains("Connection refused"), "{output}");
    }
    path_mtu(&wire, &mut guest);
    assert!(guest.power_off().success(), "{}", guest.log());
}

/// The far end is a router whose other link has a smaller MTU: "fragmentation needed" (RFC 1191).
fn path_mtu(wire: &Wire, guest: &mut Guest) {
    wire.far("ip link add small0 type veth peer name small1");
    wire.far(&format!("ip link set small0 mtu {SMALL_MTU} up"));
    wire.far("ip link set small1 up");
    wire.far("ip address add 10.80.0.1/24 dev small0");
    let beyond = format!("{BEYOND} lladdr 02:00:00:00:80:09 dev small0 nud permanent");
    wire.far(&format!("ip neigh replace {beyond}"));
    wire.far("sysctl -q -w net.ipv4.ip_forward=1");
    guest.ok(&format!("ip route add 10.80.0.0/24 via {}", Wire::PEER));
    let known = format!("iproute2 route get {BEYOND}");
    assert!(!guest.ok(&known).contains("mtu"), "nothing is known before");
    let large = "--smallest 1400 --largest 1400";
    let output = guest.run(&format!("wirecheck udp-send {BEYOND}:9 --count 1 {large}"));
    assert_ne!(output.status, 0, "{}", output.text);
    assert!(output.text.contains("Message too long"), "{}", output.text);
    let route = guest.ok(&known);
    assert!(route.contains(&format!("mtu {SMALL_MTU}")), "{route}");
}
