//! Frames that take several chunks (XDP_USE_SG, Linux 6.6 and later), on veth.

use std::time::Duration;

use ringwire_tests::{Guest, Options, Wire};

use crate::guest::{end, streams, wirecheck};

const PORT: u16 = 5001;

/// Datagrams of all sizes up to what fits into 9000 bytes.
const SIZES: &str = "--smallest 8 --largest 8972";

/// Few enough at a time that the receiving socket holds them, at the default size of its buffer.
const PACE: &str = "--count 500 --burst 4 --gap 10000";

/// From "sent=500 received=498 duplicates=0 ...": a busy host may lose a few.
fn assert_report(report: &str) {
    let received = report
        .split_whitespace()
        .find_map(|word| word.strip_prefix("received=")?.parse::<u32>().ok());
    assert!(report.contains("sent=500 "), "{report}");
    assert!(report.contains("duplicates=0"), "{report}");
    assert!(received >= Some(475), "too many lost: {report}");
}

#[test]
fn an_mtu_of_9000_works_both_ways() {
    let wire = Wire::new();
    wire.far(&format!("ip link set {} mtu 9000", Wire::PEER_IFNAME));
    wire.near(&format!("ip link set {} mtu 9000", Wire::IFNAME));
    let mut guest = Guest::boot(Options::new().on(&wire));
    assert_eq!(guest.ok("cat /sys/class/net/eth0/mtu").trim(), "9000");
    let (to, from) = (Wire::GUEST, Wire::PEER);
    let text = wire.far(&format!("ping -q -c 3 -i 0.2 -M do -s 8972 {to}"));
    assert!(text.contains("3 received"), "{text}");
    streams(&wire, &mut guest, 5_000_000);

    let receiver = wire
        .far_background(&wirecheck(&format!(
            "udp-receive {from}:{PORT} {SIZES} --seed 51"
        )))
        .after_line("listening");
    guest.ok(&format!(
        "wirecheck udp-send {from}:{PORT} {PACE} {SIZES} --seed 51"
    ));
    assert_report(&receiver.finish(Duration::from_secs(60)));

    guest.ok(&format!(
        "wirecheck udp-receive {to}:{PORT} {SIZES} --seed 52 >/tmp/received & echo $! >/tmp/pid"
    ));
    guest.ok("until grep -q listening /tmp/received; do usleep 50000; done");
    let report = wire.far(&wirecheck(&format!(
        "udp-send {to}:{PORT} {PACE} {SIZES} --seed 52"
    )));
    assert_report(&report);
    guest.ok("wait $(cat /tmp/pid)");
    end(&wire, guest);
}
