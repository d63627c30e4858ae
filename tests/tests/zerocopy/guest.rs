//! Real guests on a card with zero-copy.

use std::time::Duration;

use ringwire_tests::{Guest, Options, Setup, Wire};

const PORT: u16 = 5000;

/// Everything to the card's first queue: what is hashed to one that has no socket goes past the guest.
pub(crate) fn first_queue_only(wire: &Wire) {
    wire.near(&format!("ethtool -X {} weight 1 0", Wire::IFNAME));
}

/// A guest on `wire` with these options of the netdev, whose far end answers.
pub(crate) fn boot(wire: &Wire, keys: &str) -> Guest {
    let mut guest = Guest::boot(Options::new().on_with(wire, keys));
    wire.wait_for_carrier();
    let log = guest.log();
    assert!(log.contains("native mode, zero-copy"), "{log}");
    // It was up: what its driver does to it when the program is attached is nothing to warn of.
    assert!(!log.contains("is down;"), "{log}");
    guest.ok(&format!("ping -q -c 2 -W 10 {}", Wire::PEER));
    guest
}

/// Switches off, and returns what `ringwire` says in the end. Nothing is left on the interface.
pub(crate) fn end(wire: &Wire, mut guest: Guest) -> String {
    let status = guest.power_off();
    assert!(status.success(), "{status}: {}", guest.log());
    assert!(!wire.has_program(), "an XDP program was left on the card");
    guest.log()
}

pub(crate) fn wirecheck(arguments: &str) -> String {
    format!("{} {arguments}", Setup::wirecheck().display())
}

/// A TCP stream each way, every byte checked.
pub(crate) fn streams(wire: &Wire, guest: &mut Guest, bytes: u64) {
    let receiver = wire
        .far_background(&wirecheck(&format!(
            "tcp-receive {}:{PORT} --seed 41",
            Wire::PEER
        )))
        .after_line("listening");
    guest.ok(&format!(
        "wirecheck tcp-send {}:{PORT} --bytes {bytes} --seed 41",
        Wire::PEER
    ));
    let text = receiver.finish(Duration::from_secs(60));
    assert!(text.contains(&format!("bytes={bytes}")), "{text}");

    guest.ok(&format!(
        "wirecheck tcp-receive {}:{PORT} --seed 42 >/tmp/received & echo $! >/tmp/pid",
        Wire::GUEST
    ));
    guest.ok("until grep -q listening /tmp/received; do usleep 50000; done");
    wire.far(&wirecheck(&format!(
        "tcp-send {}:{PORT} --bytes {bytes} --seed 42",
        Wire::GUEST
    )));
    guest.ok("wait $(cat /tmp/pid)");
    let text = guest.ok("cat /tmp/received");
    assert!(text.contains(&format!("bytes={bytes}")), "{text}");
}

#[test]
fn what_a_guest_sends_and_receives_is_right() {
    let wire = Wire::of_cards();
    first_queue_only(&wire);
    let mut guest = boot(&wire, ",require=zerocopy");
    for size in [0, 1, 56, 1472] {
        let text = guest.ok(&format!("ping -q -c 3 -i 0.2 -s {size} {}", Wire::PEER));
        assert!(text.contains("3 packets received"), "-s {size}: {text}");
        let text = wire.far(&format!("ping -q -c 3 -i 0.2 -s {size} {}", Wire::GUEST));
        assert!(text.contains("3 received"), "-s {size}: {text}");
    }
    streams(&wire, &mut guest, 5_000_000);
    end(&wire, guest);
}

#[test]
fn a_guest_that_polls_its_card() {
    let wire = Wire::of_cards();
    first_queue_only(&wire);
    let mut guest = boot(&wire, ",require=zerocopy,busy-poll=20");
    streams(&wire, &mut guest, 500_000);
    end(&wire, guest);
}

#[test]
fn two_queues_both_carry_flows() {
    let wire = Wire::of_cards();
    let mut guest = boot(&wire, ",require=zerocopy,queues=2");
    // Flows differ in their ports: by those, card and guest each choose a queue.
    for _ in 0..8 {
        streams(&wire, &mut guest, 200_000);
    }
    let log = end(&wire, guest);
    for name in ["rx_packets", "tx_packets"] {
        let counts = ringwire_tests::by_pair(&log, name);
        assert!(
            counts.len() == 2 && counts.iter().all(|&count| count > 20),
            "{name}: {counts:?}\n{log}"
        );
    }
}

#[test]
fn the_second_queue_alone_with_flows_steered_to_it() {
    let wire = Wire::of_cards();
    wire.near(&format!("ethtool -X {} weight 0 1", Wire::IFNAME));
    let options = Options::new().on_with(&wire, ",require=zerocopy,start-queue=1");
    let mut guest = Guest::boot(options);
    wire.wait_for_carrier();
    // ARP is not IP: RSS leaves it on the first queue, which is the host's.
    let mac = guest.ok("cat /sys/class/net/eth0/address");
    let (mac, far) = (mac.trim(), Wire::PEER_IFNAME);
    wire.far(&format!(
        "ip neigh replace {} lladdr {mac} dev {far} nud permanent",
        Wire::GUEST
    ));
    let mac = wire.far(&format!("cat /sys/class/net/{far}/address"));
    guest.ok(&format!("arp -i eth0 -s {} {}", Wire::PEER, mac.trim()));
    guest.ok(&format!("ping -q -c 3 -i 0.5 -W 10 {}", Wire::PEER));
    streams(&wire, &mut guest, 2_000_000);
    end(&wire, guest);
}

#[test]
fn a_veth_pair_has_no_zero_copy() {
    let wire = Wire::new();
    let mut guest = Guest::start(&Options::new().on_with(&wire, ",require=zerocopy"));
    let status = guest.wait();
    assert!(!status.success(), "{}", guest.log());
    assert!(guest.log().contains("zero"), "{}", guest.log());
    assert!(!wire.has_program(), "a program was left: {}", guest.log());
}
