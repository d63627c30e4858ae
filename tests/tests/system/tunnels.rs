//! Tunnels between the far end's kernel and the guest's, and SCTP: checksums that the far end leaves undone where a guest
//! can't be told of them.

use std::time::Duration;

use ringwire_tests::{Guest, Options, Setup, Wire};

use crate::offload::{
    GUEST6, PEER6, assert_no_checksum_errors, boot_on, counter, in_guest, wirecheck,
};

const PORT: u16 = 5000;
const BYTES: u64 = 300_000;
const PATIENCE: Duration = Duration::from_secs(60);
const MODULES: [&str; 8] = [
    "vxlan",
    "geneve",
    "ip_gre",
    "ip6_gre",
    "ipip",
    "sit",
    "ip6_tunnel",
    "sctp",
];
/// Addresses in the tunnels: of the far end and of the guest.
const INNER: [(&str, &str); 2] = [("10.79.0.1", "10.79.0.2"), ("fd79::1", "fd79::2")];

/// A tunnel as `ip link` has it; LOCAL and REMOTE stand for addresses, LOCAL6 and REMOTE6 for those of IPv6.
struct Tunnel {
    link: &'static str,
    /// What it carries: IPv4, IPv6.
    carries: [bool; 2],
}

const fn tunnel(link: &'static str, v4: bool, v6: bool) -> Tunnel {
    Tunnel {
        link,
        carries: [v4, v6],
    }
}

const TUNNELS: [Tunnel; 13] = [
    tunnel(
        "vxlan id 42 local LOCAL remote REMOTE dstport 4789 noudpcsum",
        true,
        true,
    ),
    tunnel(
        "vxlan id 42 local LOCAL remote REMOTE dstport 4789 udpcsum",
        true,
        false,
    ),
    // The port that Linux has of its own, and a checksum, as it is over IPv6.
    tunnel(
        "vxlan id 42 local LOCAL6 remote REMOTE6 dstport 0",
        true,
        true,
    ),
    tunnel("geneve id 42 remote REMOTE", true, true),
    tunnel("geneve id 42 remote REMOTE udpcsum", true, false),
    tunnel("geneve id 42 remote REMOTE6", true, false),
    tunnel("gretap local LOCAL remote REMOTE", true, true),
    tunnel("gretap local LOCAL remote REMOTE key 5 csum", true, false),
    tunnel("gre local LOCAL remote REMOTE csum", true, true),
    tunnel("ip6gretap local LOCAL6 remote REMOTE6 csum", true, false),
    tunnel("ipip local LOCAL remote REMOTE", true, false),
    tunnel("sit local LOCAL remote REMOTE", false, true),
    tunnel("ip6tnl mode any local LOCAL6 remote REMOTE6", true, true),
];

fn link(link: &str, local: (&str, &str), remote: (&str, &str)) -> String {
    let words = link.split(' ').map(|word| match word {
        "LOCAL" => local.0,
        "REMOTE" => remote.0,
        "LOCAL6" => local.1,
        "REMOTE6" => remote.1,
        word => word,
    });
    format!("link add tun type {}", words.collect::<Vec<_>>().join(" "))
}

/// Both ends of a tunnel, with addresses.
fn dig(wire: &Wire, guest: &mut Guest, tunnel: &Tunnel) {
    let (far, near) = ((Wire::PEER, PEER6), (Wire::GUEST, GUEST6));
    wire.far(&format!("ip {}", link(tunnel.link, far, near)));
    guest.ok(&format!("iproute2 {}", link(tunnel.link, near, far)));
    let mut commands = vec!["link set tun up".to_owned()];
    let mut guests = commands.clone();
    for ((peer, own), (length, option)) in INNER.into_iter().zip([(24, ""), (64, " nodad")]) {
        commands.push(format!("address add {peer}/{length} dev tun{option}"));
        guests.push(format!("address add {own}/{length} dev tun{option}"));
    }
    for command in commands {
        wire.far(&format!("ip {command}"));
    }
    for command in guests {
        guest.ok(&format!("iproute2 {command}"));
    }
}

/// Streams whose every byte is checked, both ways, and datagrams to the guest.
fn exchange(wire: &Wire, guest: &mut Guest, (peer, own): (&str, &str)) {
    let brackets = |address: &str| match address.contains(':') {
        true => format!("[{address}]"),
        false => address.to_owned(),
    };
    let (to_peer, to_own) = (brackets(peer), brackets(own));
    guest.ok(&format!("ping -q -c 1 -W 10 {peer}"));
    let receiver = wire.far_background(&wirecheck(&format!("tcp-receive {to_peer}:{PORT}")));
    let receiver = receiver.after_line("listening");
    guest.ok(&format!(
        "wirecheck tcp-send {to_peer}:{PORT} --bytes {BYTES}"
    ));
    let report = receiver.finish(PATIENCE);
    assert!(report.contains(&format!("bytes={BYTES}")), "{report}");

    in_guest(guest, &format!("tcp-receive {to_own}:{PORT}"));
    let send = format!("tcp-send {to_own}:{PORT} --bytes {BYTES}");
    wire.far(&wirecheck(&send));
    let report = guest.ok("wait $(cat /tmp/pid); cat /tmp/received");
    assert!(report.contains(&format!("bytes={BYTES}")), "{report}");

    in_guest(
        guest,
        &format!("udp-receive {to_own}:{PORT} --largest 1200"),
    );
    let send = format!("udp-send {to_own}:{PORT} --count 100 --burst 8 --gap 10000 --largest 1200");
    let report = wire.far(&wirecheck(&send));
    guest.ok("wait $(cat /tmp/pid)");
    assert!(!report.contains("received=0 "), "{report}");
}

/// Boots a guest that can do all this, with these keys of `--netdev`.
fn boot(wire: &Wire, keys: &str, arguments: &[&str]) -> Guest {
    Setup::load_modules(&MODULES);
    let mut options = Options::new().on_with(wire, keys);
    for argument in arguments {
        options = options.arg(*argument);
    }
    let mut guest = boot_on(wire, options);
    guest.ok("load-later");
    guest
}

fn carry_all(keys: &str, arguments: &[&str], tunnels: &[&Tunnel]) {
    let wire = Wire::new();
    let mut guest = boot(&wire, keys, arguments);
    for tunnel in tunnels {
        println!("{}", tunnel.link);
        dig(&wire, &mut guest, tunnel);
        let wanted = INNER.into_iter().zip(tunnel.carries);
        for (addresses, _) in wanted.filter(|(_, wanted)| *wanted) {
            exchange(&wire, &mut guest, addresses);
        }
        wire.far("ip link del tun");
        guest.ok("iproute2 link del tun");
    }
    assert_no_checksum_errors(&wire, &mut guest);
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    let completed = counter(&log, "rx_checksums");
    // More than the datagrams.
    assert!(completed > 100 * tunnels.len() as u64, "{completed}: {log}");
}

#[test]
fn tcp_and_udp_pass_tunnels_of_all_kinds() {
    carry_all("", &[], &TUNNELS.each_ref());
}

#[test]
fn tcp_and_udp_pass_tunnels_of_a_guest_without_offloads() {
    let device = ["--device", "virtio-net-pci,netdev=net0,csum=off"];
    carry_all("", &device, &[&TUNNELS[1], &TUNNELS[6]]);
}

/// Frames that the far end left whole, with what it left undone of the tunnel's header.
#[test]
fn tcp_and_udp_pass_tunnels_in_skb_mode() {
    let tunnels = [0, 1, 2, 6, 7, 8].map(|at| &TUNNELS[at]);
    carry_all(",mode=skb", &[], &tunnels);
}

#[test]
fn sctp_connects_and_carries_both_ways() {
    let wire = Wire::new();
    let mut guest = boot(&wire, "", &[]);
    let server = wire.far_background("iperf3 --server --forceflush");
    let server = server.after_line("listening");
    for peer in [Wire::PEER, PEER6] {
        for way in ["", "--reverse"] {
            let client = format!("iperf3 --sctp --client {peer} --bytes 500K --json {way}");
            let report = guest.ok(&client);
            assert!(report.contains("\"sum_received\""), "{report}");
        }
    }
    server.interrupt();
    let _ = server.end(PATIENCE);
    let errors = guest.ok("cat /proc/net/sctp/snmp");
    let line = errors
        .lines()
        .find(|it| it.starts_with("SctpChecksumErrors"));
    let count = line.and_then(|line| line.split_whitespace().nth(1));
    assert_eq!(count, Some("0"), "{errors}");
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(counter(&log, "rx_checksums") > 100, "{log}");
}
