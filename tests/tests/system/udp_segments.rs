//! Large datagram frames (USO), which Linux has known since 6.2: what the guest leaves to be cut, and what is put together for
//! it.

use std::path::PathBuf;
use std::time::Duration;

use ringwire_tests::{Guest, Options, Setup, Wire};

use crate::offload::{assert_no_checksum_errors, boot_with, counter, wirecheck};

const PORT: u16 = 5000;
const PATIENCE: Duration = Duration::from_secs(120);
/// 40 datagrams of 1400 bytes in a call.
const MANY: &str = "--count 2000 --together 40 --burst 40 --gap 30000";
const SIZES: &str = "--smallest 1400 --largest 1400";

/// Received datagrams, none of them twice.
fn received(report: &str) -> u64 {
    let value = |name: &str| -> u64 {
        let mut words = report.split_whitespace();
        let value = words.find_map(|it| it.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name}: {report}"))
    };
    assert_eq!((value("sent"), value("duplicates")), (2000, 0), "{report}");
    value("received")
}

/// Every datagram that arrives is right, and more than half of them do, on a busy host.
fn exchange(wire: &Wire, guest: &mut Guest) {
    let (peer, own) = (Wire::PEER, Wire::GUEST);
    let receiver = wire.far_background(&wirecheck(&format!("udp-receive {peer}:{PORT} {SIZES}")));
    let receiver = receiver.after_line("listening");
    guest.ok(&format!("wirecheck udp-send {peer}:{PORT} {MANY} {SIZES}"));
    let report = receiver.finish(PATIENCE);
    assert!(received(&report) > 1000, "{report}");

    guest.ok(&format!(
        "wirecheck udp-receive {own}:{PORT} {SIZES} >/tmp/received & echo $! >/tmp/pid"
    ));
    guest.ok("until grep -q listening /tmp/received; do usleep 50000; done");
    let report = wire.far(&wirecheck(&format!("udp-send {own}:{PORT} {MANY} {SIZES}")));
    guest.ok("wait $(cat /tmp/pid)");
    assert!(received(&report) > 1000, "{report}");
}

fn check((kernel, initrd): (PathBuf, PathBuf)) {
    let wire = Wire::new();
    let options = Options::new().kernel(kernel).initrd(initrd);
    let mut guest = boot_with(&wire, options);
    println!("{}", guest.ok("uname -r").trim());
    // Linux's driver has it, switched off.
    guest.ok("ethtool -K eth0 tx-udp-segmentation on");
    exchange(&wire, &mut guest);
    assert_no_checksum_errors(&wire, &mut guest);
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(
        log.contains("offloads in use: csum, tso, uso, gro"),
        "{log}"
    );
    let [cut, coalesced] = ["tx_segmented", "rx_coalesced"].map(|it| counter(&log, it));
    println!("{cut} frames were cut, {coalesced} put behind others");
    // As many as there were calls, at most.
    assert!((1..=50).contains(&cut), "{log}");
    assert!(coalesced > 100, "{log}");
    assert_eq!(counter(&log, "tx_bad_offload"), 0, "{log}");
}

#[test]
fn datagrams_are_cut_and_put_together() {
    let kernels = Setup::other_kernels();
    assert!(!kernels.is_empty());
    kernels.into_iter().for_each(check);
}
