//! The bare guest of `tests/guests`: it drives virtio-net by polling, on any KVM. The far end of its
//! wire checks every byte. Needs root.

mod measure;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use net_afxdp::{Port, PortConfig, Queue};
use serde_json::Value;

use crate::{
    process::{Process, outcome, run},
    wire::{Wire, can_run},
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// As many frames as all rings on the way hold: none can be lost.
const FRAMES: u64 = 1000;
const SIZES: [usize; 4] = [60, 64, 571, 1514];
const DESTINATION: [u8; 6] = [0xff; 6];
const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// For local experiments.
pub(crate) const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Where a frame's number is, and its pattern.
pub(crate) const NUMBER: usize = 14;
pub(crate) const PATTERN: usize = 22;

/// The guest that sends and receives.
pub(crate) fn traffic() -> PathBuf {
    program("traffic")
}

/// A guest, after all were built, once; or one that was built before, for where nothing can be.
pub(crate) fn program(name: &str) -> PathBuf {
    if let Some(built) = std::env::var_os("RINGWIRE_BARE_GUESTS") {
        return Path::new(&built).join(name);
    }
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| {
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guests/Cargo.toml");
        let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/guests");
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--release",
                "--locked",
                "--manifest-path",
            ])
            .args([sources, "--target-dir", target])
            .status()
            .unwrap();
        assert!(status.success(), "cargo could not build tests/guests");
        Path::new(target).join("release")
    });
    programs.join(name)
}

pub(crate) fn pattern(frame: &[u8]) -> impl Iterator<Item = (&u8, u8)> {
    // The pattern is modulo 256.
    frame.iter().zip((0..=u8::MAX).cycle()).skip(PATTERN)
}

/// As the guest makes them.
fn frame(number: u64, size: usize) -> Vec<u8> {
    let mut frame = vec![0; size];
    frame[..6].copy_from_slice(&DESTINATION);
    frame[6..12].copy_from_slice(&SOURCE);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    frame[NUMBER..PATTERN].copy_from_slice(&number.to_be_bytes());
    let bytes: Vec<u8> = pattern(&frame).map(|(_, byte)| byte).collect();
    frame[PATTERN..].copy_from_slice(&bytes);
    frame
}

/// The far end of a wire.
pub(crate) struct Far {
    _port: Port,
    pub(crate) queues: Vec<Queue>,
}

impl Far {
    pub(crate) fn new(wire: &Wire, queues: u32) -> Self {
        let mut port = Port::open(&PortConfig {
            ifname: wire.peer.clone(),
            queues,
            ..PortConfig::default()
        })
        .unwrap();
        let queues = port.take_queues();
        Self {
            _port: port,
            queues,
        }
    }

    fn send(&mut self, frames: u64, size: usize) {
        let queue = &mut self.queues[0];
        for number in 0..frames {
            let frame = frame(number, size);
            while queue.room() == 0 {
                queue.flush().unwrap();
            }
            queue
                .send(size, |bytes| bytes.copy_from_slice(&frame))
                .unwrap();
            if number % 64 == 63 {
                queue.flush().unwrap();
            }
        }
        queue.flush().unwrap();
    }

    /// Receives until there are `frames` of the guest's, or for a time; the numbers, by queue.
    fn receive(&mut self, frames: usize, size: usize) -> Vec<Vec<u64>> {
        let deadline = Instant::now() + PATIENCE;
        let mut numbers = vec![Vec::new(); self.queues.len()];
        while numbers.iter().map(Vec::len).sum::<usize>() < frames && Instant::now() < deadline {
            for (queue, numbers) in self.queues.iter_mut().zip(&mut numbers) {
                queue.receive(64, |fragments| {
                    numbers.extend(check(&fragments.concat(), size));
                    ControlFlow::Continue(())
                });
            }
        }
        numbers
    }
}

/// The number of a frame with every byte right; `None` for those that the kernel sends.
fn check(frame: &[u8], size: usize) -> Option<u64> {
    if frame[12..14] != ETHERTYPE {
        return None;
    }
    assert_eq!(frame.len(), size);
    let wrong = pattern(frame).position(|(&byte, right)| byte != right);
    assert_eq!(wrong, None, "{frame:x?}");
    Some(u64::from_be_bytes(
        frame[NUMBER..PATTERN].try_into().unwrap(),
    ))
}

fn start(wire: &Wire, options: &str, words: &str) -> Process {
    let netdev = format!("af-xdp,ifname={}{options}", wire.name);
    let words = format!("acpi=off {words}");
    let arguments = ["-v", "--netdev", &netdev, "--cmdline", &words];
    let mut guest = Process::start(&mut run(&traffic(), &arguments));
    guest.wait_for("ready\n");
    guest
}

/// Waits for its end; what it reports.
fn report(guest: Process) -> Value {
    report_and_log(guest).0
}

fn report_and_log(guest: Process) -> (Value, String) {
    let end = guest.finish();
    assert_eq!(end.code(), 0, "{end:?}");
    println!("{}{}", end.stdout, end.stderr);
    let report: Value = serde_json::from_str(&end.stdout).unwrap();
    let packets = report["packets"].as_u64().unwrap();
    let received = counter(&end.stderr, " rx_frames=");
    let sent = counter(&end.stderr, " tx_frames=");
    // The kernel of the far end has frames of its own for those who receive, also after the last.
    match report["mode"].as_str() {
        Some("tx") => assert_eq!(sent, packets),
        Some("rx") => assert!(received >= packets),
        _ => assert!(received >= packets && sent >= packets),
    }
    assert!(!end.stderr.contains("don't add up"), "{}", end.stderr);
    (report, end.stderr)
}

fn counter(text: &str, name: &str) -> u64 {
    let (_, rest) = text.split_once(name).unwrap();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}

fn assert_report(report: &Value, packets: u64, size: usize) {
    let expected = [
        ("packets", packets),
        ("bytes", packets * size as u64),
        ("bad", 0),
        ("gaps", 0),
    ];
    for (name, value) in expected {
        assert_eq!(report[name], value, "{name}: {report}");
    }
    assert_eq!(report["end"], "packets", "{report}");
    assert!(report["cycles"].as_u64() > Some(0), "{report}");
}

#[test]
fn a_polling_guest_sends() {
    if !can_run() {
        return;
    }
    for size in SIZES {
        let wire = Wire::new();
        let mut far = Far::new(&wire, 1);
        let guest = start(&wire, "", &format!("mode=tx size={size} packets={FRAMES}"));
        let numbers = far.receive(1000, size).concat();
        assert!(numbers.into_iter().eq(0..FRAMES), "{size}");
        assert_report(&report(guest), FRAMES, size);
    }
}

#[test]
fn the_indices_of_its_rings_wrap() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let mut far = Far::new(&wire, 1);
    // More than 16 bits count. What the far end is too slow for is lost, but nothing comes twice.
    let mut guest = start(&wire, "", "mode=tx packets=70000 ring=64");
    let last = 69_999;
    let mut numbers = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while numbers.last() != Some(&last) && Instant::now() < deadline {
        let queue = &mut far.queues[0];
        let taken = queue.receive(64, |fragments| {
            numbers.extend(check(&fragments.concat(), 64));
            ControlFlow::Continue(())
        });
        // The last one may be among the lost.
        if taken == 0 && guest.has_ended() {
            break;
        }
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "duplicates or disorder");
    let report = report(guest);
    assert_report(&report, 70_000, 64);
    assert_eq!(report["tx_ring"], 64);
    // The device works in bursts, so it can't want a notification for every frame.
    assert!(report["kicks"].as_u64() < Some(35_000), "{report}");
}

#[test]
fn a_polling_guest_receives() {
    if !can_run() {
        return;
    }
    for size in SIZES {
        let wire = Wire::new();
        let mut far = Far::new(&wire, 1);
        let words = format!("mode=rx check=1 size={size} packets={FRAMES}");
        let guest = start(&wire, "", &words);
        far.send(FRAMES, size);
        assert_report(&report(guest), FRAMES, size);
    }
}

#[test]
fn a_polling_guest_forwards() {
    if !can_run() {
        return;
    }
    for size in SIZES {
        let wire = Wire::new();
        let mut far = Far::new(&wire, 1);
        let words = format!("mode=fwd check=1 size={size} packets={FRAMES}");
        let guest = start(&wire, "", &words);
        far.send(FRAMES, size);
        let numbers = far.receive(1000, size).concat();
        assert!(numbers.into_iter().eq(0..FRAMES), "{size}");
        assert_report(&report(guest), FRAMES, size);
    }
}

/// `zero-copy-tx=on`: the same frames, from guest memory. Those that are short are copied.
#[test]
fn a_polling_guest_sends_without_copies() {
    if !can_run() {
        return;
    }
    for size in [64, 571, 1514] {
        let wire = Wire::new();
        let mut far = Far::new(&wire, 1);
        let words = format!("mode=tx size={size} packets={FRAMES}");
        let guest = start(&wire, ",zero-copy-tx=on", &words);
        let numbers = far.receive(1000, size).concat();
        assert!(numbers.into_iter().eq(0..FRAMES), "{size}");
        let (report, log) = report_and_log(guest);
        assert_report(&report, FRAMES, size);
        let in_place = counter(&log, " tx_in_place=");
        if size < 768 {
            assert_eq!(in_place, 0, "{log}");
        } else {
            // A frame that crosses a page is copied before Linux 6.6.
            assert!(in_place > FRAMES / 3, "{log}");
        }
        assert_eq!(counter(&log, " tx_unreturned="), 0);
    }
}

#[test]
fn a_polling_guest_uses_two_queue_pairs() {
    if !can_run() {
        return;
    }
    let wire = Wire::with_queues(2);
    let mut far = Far::new(&wire, 2);
    let words = format!("mode=tx pairs=2 packets={FRAMES} ring=256");
    let guest = start(&wire, ",queues=2", &words);
    let numbers = far.receive(1000, 64);
    for queue in &numbers {
        assert!(!queue.is_empty(), "all frames on one queue");
        assert!(queue.is_sorted(), "{queue:?}");
    }
    let mut all = numbers.concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..FRAMES));
    assert_report(&report(guest), FRAMES, 64);
}

#[test]
fn wrong_words_are_told() {
    if !can_run() {
        return;
    }
    let told = |arguments: &[&str], words: &str| {
        let end = outcome(&mut run(&traffic(), arguments));
        assert_eq!(end.code(), 0, "{end:?}");
        assert!(end.stdout.starts_with("{\"error\":"), "{end:?}");
        assert!(end.stdout.contains(words), "{end:?}");
    };
    told(&["--cmdline", "mode=x"], "mode=x is not tx, rx or fwd");
    told(&["--cmdline", "mode=tx size=59"], "size=59 is not from 60");
    // Described by ACPI, which this guest does not read, and then not there at all.
    let none = "the command line names no network card";
    told(&["--cmdline", "mode=tx"], none);
    told(&["--cmdline", "mode=tx acpi=off"], none);
}
