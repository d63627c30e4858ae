//! Traffic between a guest and the far end of the wire, every byte checked.

use std::time::Duration;

use ringwire_tests::{Guest, Options, Setup, Wire};

const PORT: u16 = 5000;

fn boot(wire: &Wire) -> Guest {
    boot_with(wire, Options::new())
}

fn boot_with<'a>(wire: &'a Wire, options: Options<'a>) -> Guest {
    let mut guest = Guest::boot(options.on(wire));
    assert!(
        wire.has_program(),
        "no XDP program on the interface: {}",
        guest.log()
    );
    // The guest's side is up when the far end answers; the first packet pays for ARP.
    guest.ok(&format!("ping -q -c 2 -W 5 {}", Wire::PEER));
    guest
}

/// The end every one of these tests has: nothing is left on the interface.
fn end(wire: &Wire, mut guest: Guest) {
    let status = guest.power_off();
    assert!(status.success(), "{status}: {}", guest.log());
    assert!(
        !wire.has_program(),
        "an XDP program was left on the interface"
    );
}

fn wirecheck(arguments: &str) -> String {
    format!("{} {arguments}", Setup::wirecheck().display())
}

#[test]
fn ping_both_ways_with_small_and_large_packets() {
    let wire = Wire::new();
    let mut guest = boot(&wire);
    for size in [0, 1, 17, 56, 511, 1024, 1472] {
        let text = guest.ok(&format!("ping -q -c 3 -i 0.2 -s {size} {}", Wire::PEER));
        assert!(text.contains("3 packets received"), "-s {size}: {text}");
        let text = wire.far(&format!("ping -q -c 3 -i 0.2 -s {size} {}", Wire::GUEST));
        assert!(text.contains("3 received"), "-s {size}: {text}");
    }
    end(&wire, guest);
}

#[test]
fn tcp_payload_is_right_both_ways() {
    tcp_payload(Options::new(), 40_000_000);
}

#[test]
fn tcp_payload_is_right_both_ways_on_mmio() {
    tcp_payload(Options::new().mmio(), 20_000_000);
}

fn tcp_payload(options: Options<'_>, bytes: u64) {
    let wire = Wire::new();
    let mut guest = boot_with(&wire, options);

    let receiver = wire.far_background(&wirecheck(&format!(
        "tcp-receive {}:{PORT} --seed 11",
        Wire::PEER
    )));
    let receiver = receiver.after_line("listening");
    guest.ok(&format!(
        "wirecheck tcp-send {}:{PORT} --bytes {bytes} --seed 11",
        Wire::PEER
    ));
    assert!(
        receiver
            .finish(Duration::from_secs(30))
            .contains(&format!("bytes={bytes}"))
    );

    guest.ok(&format!(
        "wirecheck tcp-receive {}:{PORT} --seed 12 >/tmp/received & echo $! >/tmp/pid",
        Wire::GUEST
    ));
    guest.ok("until grep -q listening /tmp/received; do usleep 50000; done");
    wire.far(&wirecheck(&format!(
        "tcp-send {}:{PORT} --bytes {bytes} --seed 12",
        Wire::GUEST
    )));
    guest.ok("wait $(cat /tmp/pid)");
    assert!(
        guest
            .ok("cat /tmp/received")
            .contains(&format!("bytes={bytes}"))
    );
    end(&wire, guest);
}

/// From "sent=5000 received=4998 ...".
fn value(report: &str, name: &str) -> u64 {
    let value = report
        .split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in '{report}'"))
}

/// Paced slowly enough that nothing needs to be lost; a few may be, on a busy emulated host, but none twice.
fn assert_report(report: &str, sent: u64) {
    assert_eq!(value(report, "sent"), sent, "{report}");
    assert_eq!(value(report, "duplicates"), 0, "{report}");
    assert!(
        value(report, "received") * 100 >= sent * 95,
        "too many lost: {report}"
    );
}

#[test]
fn udp_payload_is_right_both_ways() {
    let wire = Wire::new();
    let mut guest = boot(&wire);
    // At most 1600 a second: what a guest in the lab can take while other work goes on there.
    let count = 3000;
    let pace = "--burst 16 --gap 10000";

    let receiver = wire.far_background(&wirecheck(&format!(
        "udp-receive {}:{PORT} --seed 13",
        Wire::PEER
    )));
    let receiver = receiver.after_line("listening");
    guest.ok(&format!(
        "wirecheck udp-send {}:{PORT} --count {count} {pace} --seed 13",
        Wire::PEER
    ));
    assert_report(&receiver.finish(Duration::from_secs(30)), count);

    guest.ok(&format!(
        "wirecheck udp-receive {}:{PORT} --seed 14 >/tmp/received & echo $! >/tmp/pid",
        Wire::GUEST
    ));
    guest.ok("until grep -q listening /tmp/received; do usleep 50000; done");
    let report = wire.far(&wirecheck(&format!(
        "udp-send {}:{PORT} --count {count} {pace} --seed 14",
        Wire::GUEST
    )));
    assert_report(&report, count);
    guest.ok("wait $(cat /tmp/pid)");
    end(&wire, guest);
}

#[test]
fn iperf3_both_ways_at_once_for_30_seconds() {
    let wire = Wire::new();
    let mut guest = boot(&wire);
    let _server = wire
        .far_background("iperf3 --server --forceflush")
        .after_line("listening");
    guest.send(&format!("iperf3 -c {} -t 30 --bidir", Wire::PEER));
    let output = guest.answer(Duration::from_secs(90));
    assert_eq!(output.status, 0, "{}", output.text);
    // One line for each direction, as the receiving end counted; neither may have stood still.
    let received: Vec<_> = output
        .text
        .lines()
        .filter(|line| line.ends_with("receiver"))
        .collect();
    assert_eq!(received.len(), 2, "{}", output.text);
    assert!(
        received.iter().all(|line| !line.contains(" 0.00 Bytes")),
        "{}",
        output.text
    );
    println!("{}", received.join("\n"));
    end(&wire, guest);
}

#[test]
fn the_guest_has_the_interface_s_mtu_and_link_state() {
    let wire = Wire::new();
    wire.near(&format!("ip link set {} mtu 1400", Wire::IFNAME));
    let mut guest = boot(&wire);
    assert_eq!(guest.ok("cat /sys/class/net/eth0/mtu").trim(), "1400");
    assert_eq!(guest.ok("cat /sys/class/net/eth0/carrier").trim(), "1");
    wire.far(&format!("ip link set {} down", Wire::PEER_IFNAME));
    guest.wait_for_link(false);
    wire.far(&format!("ip link set {} up", Wire::PEER_IFNAME));
    guest.wait_for_link(true);
    guest.ok(&format!("ping -q -c 3 -W 5 {}", Wire::PEER));
    end(&wire, guest);
}
