//! Checksums, segmentation and coalescing between a Linux guest and the far end, which leaves its own checksums
//! undone as Linux does on veth.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use ringwire_tests::{Background, Guest, Options, Setup, TempDir, Wire};

const PORT: u16 = 5000;
/// IPv6 addresses of the far end and of the guest.
pub(crate) const PEER6: &str = "fd78::1";
pub(crate) const GUEST6: &str = "fd78::2";

/// A guest on `wire` that has IPv6 too.
fn boot(wire: &Wire, device: Option<&str>) -> Guest {
    let mut options = Options::new();
    if let Some(device) = device {
        options = options.arg("--device").arg(device);
    }
    boot_with(wire, options)
}

/// The same of a guest with these options.
pub(crate) fn boot_with<'a>(wire: &'a Wire, options: Options<'a>) -> Guest {
    boot_on(wire, options.on(wire))
}

/// The same of options that have the card already.
pub(crate) fn boot_on<'a>(wire: &'a Wire, options: Options<'a>) -> Guest {
    let mut guest = Guest::boot(options);
    // Addresses that are usable at once.
    wire.far(&format!(
        "ip -6 address add {PEER6}/64 dev {} nodad",
        Wire::PEER_IFNAME
    ));
    guest.ok("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad");
    guest.ok(&format!("ip -6 addr add {GUEST6}/64 dev eth0"));
    guest.ok(&format!("ping -q -c 2 -W 5 {}", Wire::PEER));
    guest.ok(&format!("ping -q -c 2 -W 5 {PEER6}"));
    guest
}

pub(crate) fn wirecheck(arguments: &str) -> String {
    format!("{} {arguments}", Setup::wirecheck().display())
}

/// Streams and datagrams whose every byte is checked, both ways, over both versions of IP.
fn exchange(wire: &Wire, guest: &mut Guest, bytes: u64) {
    for (peer, own) in [
        (Wire::PEER, Wire::GUEST),
        (&format!("[{PEER6}]"), &format!("[{GUEST6}]")),
    ] {
        let receiver = wire.far_background(&wirecheck(&format!("tcp-receive {peer}:{PORT}")));
        let receiver = receiver.after_line("listening");
        guest.ok(&format!("wirecheck tcp-send {peer}:{PORT} --bytes {bytes}"));
        let report = receiver.finish(Duration::from_secs(30));
        assert!(report.contains(&format!("bytes={bytes}")), "{report}");

        in_guest(guest, &format!("tcp-receive {own}:{PORT}"));
        wire.far(&wirecheck(&format!(
            "tcp-send {own}:{PORT} --bytes {bytes}"
        )));
        let report = guest.ok("wait $(cat /tmp/pid); cat /tmp/received");
        assert!(report.contains(&format!("bytes={bytes}")), "{report}");

        // Slowly enough that nearly none needs to be lost.
        let send = "--count 200 --burst 8 --gap 10000";
        let receiver = wire.far_background(&wirecheck(&format!("udp-receive {peer}:{PORT}")));
        let receiver = receiver.after_line("listening");
        guest.ok(&format!("wirecheck udp-send {peer}:{PORT} {send}"));
        assert_most(&receiver.finish(Duration::from_secs(30)));

        in_guest(guest, &format!("udp-receive {own}:{PORT}"));
        assert_most(&wire.far(&wirecheck(&format!("udp-send {own}:{PORT} {send}"))));
        guest.ok("wait $(cat /tmp/pid)");
    }
}

/// Starts a receiver in the guest and waits until it is ready.
pub(crate) fn in_guest(guest: &mut Guest, arguments: &str) {
    guest.ok(&format!(
        "wirecheck {arguments} >/tmp/received & echo $! >/tmp/pid"
    ));
    guest.ok("until grep -q listening /tmp/received; do usleep 50000; done");
}

/// From "sent=200 received=198 duplicates=0 ...". A busy host loses some, and the reports of both ends' kernels
/// tell for what reason; none comes twice.
fn assert_most(report: &str) {
    let value = |name: &str| -> u64 {
        let word = report
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in '{report}'"))
    };
    assert!(
        value("received") >= 100 && value("duplicates") == 0,
        "{report}"
    );
}

/// How many segments and datagrams a kernel has dropped for their checksums, from /proc/net/snmp (a line of names and
/// a line of values for each protocol) and snmp6 (a name and a value in each line).
fn checksum_errors(report: &str) -> u64 {
    let lines: Vec<Vec<_>> = report
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let tables = lines.windows(2).filter_map(|pair| {
        let [names, values] = pair else { return None };
        let at = names.iter().position(|name| *name == "InCsumErrors")?;
        values.get(at)?.parse::<u64>().ok()
    });
    let single = lines.iter().filter_map(|line| match line[..] {
        [name, value] if name.ends_with("InCsumErrors") => value.parse().ok(),
        _ => None,
    });
    let all: Vec<_> = tables.chain(single).collect();
    assert!(
        all.len() >= 4,
        "TCP, UDP, and UDP over IPv6 are there: {report}"
    );
    all.iter().sum()
}

pub(crate) fn assert_no_checksum_errors(wire: &Wire, guest: &mut Guest) {
    let files = "cat /proc/net/snmp /proc/net/snmp6";
    for (end, report) in [("far end", wire.far(files)), ("guest", guest.ok(files))] {
        assert_eq!(checksum_errors(&report), 0, "at the {end}: {report}");
    }
}

/// The counter `name` of the guest's card, from the log of a `ringwire` that has ended.
pub(crate) fn counter(log: &str, name: &str) -> u64 {
    let line = log.lines().rfind(|line| line.contains(": guest, on "));
    let word = line.and_then(|line| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    });
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {log}"))
}

/// What the far end receives, in a file.
struct Capture {
    tcpdump: Background,
    file: String,
    _directory: TempDir,
}

impl Capture {
    fn start(wire: &Wire) -> Self {
        let directory = TempDir::new();
        let file = directory.path().join("pcap").display().to_string();
        let tcpdump = wire.far_background(&format!(
            "tcpdump -Z root -B 16384 -i {} -Q in -U -w {file}",
            Wire::PEER_IFNAME
        ));
        let deadline = Instant::now() + Duration::from_secs(60);
        while size(&file) == 0 {
            assert!(Instant::now() < deadline, "tcpdump does not start");
            thread::sleep(Duration::from_millis(50));
        }
        Self {
            tcpdump,
            file,
            _directory: directory,
        }
    }

    /// Ends it when it has written all: the frames in words.
    fn finish(self, wire: &Wire) -> String {
        let mut written = 0;
        while size(&self.file) != written {
            written = size(&self.file);
            thread::sleep(Duration::from_secs(2));
        }
        self.tcpdump.interrupt();
        self.tcpdump.finish(Duration::from_secs(60));
        // No ICMP errors: they quote what the guest got, which may have a partial checksum.
        wire.far(&format!("tcpdump -nn -vv -r {} tcp or udp", self.file))
    }
}

fn size(file: &str) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len())
}

/// Whether tcpdump found right checksums only: in two streams of 2 MB in segments, and datagrams.
fn assert_all_right(frames: &str) {
    let wrong: Vec<_> = frames
        .lines()
        .filter(|line| {
            line.contains("incorrect") || line.contains(" bad cksum") || line.contains("[bad udp")
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} lines: {wrong:.3?}",
        wrong.len(),
        frames.lines().count()
    );
    let (tcp, udp) = (
        frames.matches("(correct)").count(),
        frames.matches("udp sum ok").count(),
    );
    assert!(tcp > 2700 && udp > 200, "{tcp} segments, {udp} datagrams");
}

#[test]
fn content_and_checksums_are_right_with_all_offloads() {
    let wire = Wire::new();
    let mut guest = boot(&wire, None);
    let capture = Capture::start(&wire);
    exchange(&wire, &mut guest, 2_000_000);
    assert_no_checksum_errors(&wire, &mut guest);
    assert_all_right(&capture.finish(&wire));
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("offloads in use: csum, tso"), "{log}");
    assert!(counter(&log, "tx_segmented") > 50, "{log}");
    assert!(counter(&log, "rx_coalesced") > 50, "{log}");
    assert_eq!(counter(&log, "tx_bad_offload"), 0, "{log}");
    assert_eq!(
        counter(&log, "rx_checksums"),
        0,
        "the guest takes partial ones: {log}"
    );
}

/// With `tx-metadata=on` the kernel gets the guest's checksums undone. Over a veth it passes them on, and the far end
/// knows; with the veth's offload off it completes them.
#[test]
fn content_is_right_with_checksums_left_to_the_kernel() {
    let wire = Wire::new();
    let options = Options::new().on_with(&wire, ",tx-metadata=on");
    let mut guest = boot_on(&wire, options);
    exchange(&wire, &mut guest, 2_000_000);
    assert_no_checksum_errors(&wire, &mut guest);
    wire.near(&format!("ethtool -K {} tx off", Wire::IFNAME));
    let capture = Capture::start(&wire);
    exchange(&wire, &mut guest, 2_000_000);
    assert_no_checksum_errors(&wire, &mut guest);
    assert_all_right(&capture.finish(&wire));
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("mode, copy, tx-checksum"), "{log}");
    assert!(counter(&log, "tx_segmented") > 100, "{log}");
    assert!(counter(&log, "tx_checksums_offloaded") > 5400, "{log}");
    assert_eq!(counter(&log, "tx_bad_offload"), 0, "{log}");
}

/// Without offloads the far end's partial checksums are completed by us.
#[test]
fn content_is_right_without_offloads() {
    let wire = Wire::new();
    let mut guest = boot(&wire, Some("virtio-net-mmio,netdev=net0,csum=off"));
    exchange(&wire, &mut guest, 2_000_000);
    assert_no_checksum_errors(&wire, &mut guest);
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(
        log.contains("offloads in use: none; offered: none"),
        "{log}"
    );
    assert!(counter(&log, "rx_checksums") > 1000, "{log}");
    for name in [
        "tx_checksums",
        "tx_checksums_offloaded",
        "tx_segmented",
        "rx_coalesced",
    ] {
        assert_eq!(counter(&log, name), 0, "{name}: {log}");
    }
}

/// In skb mode the far end's TCP comes in frames of up to 64 KiB: whole, and cut by us for a guest that has switched them
/// off.
#[test]
fn content_is_right_with_frames_that_the_far_end_left_whole() {
    let wire = Wire::new();
    let mut guest = boot_on(&wire, Options::new().on_with(&wire, ",mode=skb"));
    let mode = wire.near(&format!("ip link show {}", Wire::IFNAME));
    assert!(mode.contains("xdpgeneric"), "{mode}");
    // Before Linux 6.6 they get lost, and this helps, as the log says.
    let whole = !guest.log().contains("`ethtool -K PEER tso off gso off`");
    if !whole {
        wire.far(&format!("ethtool -K {} tso off gso off", Wire::PEER_IFNAME));
    }
    exchange(&wire, &mut guest, 2_000_000);
    guest.ok("ethtool -K eth0 rx-gro-hw off");
    exchange(&wire, &mut guest, 1_000_000);
    assert_no_checksum_errors(&wire, &mut guest);
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    let (uncut, dropped) = (counter(&log, "rx_uncut"), counter(&log, "rx_uncut_dropped"));
    // 6 MB, in frames of 64 KiB at most.
    assert_eq!((uncut > 90, dropped), (whole, 0), "{uncut}: {log}");
}
