//! A Linux guest changes its card's rings while they are used: `ethtool -G`, by VIRTIO_F_RING_RESET.

use std::time::{Duration, Instant};

use ringwire_tests::{Guest, Options, Wire};

use crate::offload::{counter, wirecheck};

/// How long what goes one way may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What goes each way at once, in bytes.
const BYTES: usize = 10_000_000;
/// How often the rings are changed at least.
const CHANGES: usize = 6;
/// Sizes of the receive and of the transmit rings; at first both are the largest.
const SIZES: [(u16, u16); 5] = [
    (256, 1024),
    (512, 256),
    (256, 512),
    (1024, 256),
    (1024, 1024),
];

/// Sizes of the receive and the transmit rings, as the guest says.
fn sizes(guest: &mut Guest) -> (u16, u16) {
    let text = guest.ok("ethtool -g eth0");
    let (_, now) = text.split_once("Current").expect("what they are now");
    let size = |name: &str| {
        let line = now.lines().find_map(|line| line.strip_prefix(name));
        let size = line.and_then(|rest| rest.trim().parse().ok());
        size.unwrap_or_else(|| panic!("no {name} {text}"))
    };
    (size("RX:"), size("TX:"))
}

/// Changes them all the time while both ends send and check what comes, as often as it takes for some changes.
pub(crate) fn resizes(wire: &Wire, guest: &mut Guest) {
    assert_eq!(sizes(guest), (1024, 1024));
    let mut next = SIZES.into_iter().cycle();
    let (mut changes, mut rounds) = (0, 0);
    while changes < CHANGES {
        changes += change_in_traffic(wire, guest, &mut next);
        rounds += 1;
    }
    println!(
        "{changes} changes of all rings in {} MB each way",
        rounds * BYTES / 1_000_000
    );
    // The number of pairs, after the rings were others.
    for pairs in [1, 2] {
        guest.ok(&format!("ethtool -L eth0 combined {pairs}"));
        guest.ok(&format!("ping -q -c 3 -i 0.2 -W 5 {}", Wire::PEER));
    }
}

/// Once [`BYTES`] each way; how often the rings were changed meanwhile, the last time perhaps when all had arrived.
fn change_in_traffic(
    wire: &Wire,
    guest: &mut Guest,
    next: &mut impl Iterator<Item = (u16, u16)>,
) -> usize {
    let (ours, far) = (
        format!("{}:6000", Wire::GUEST),
        format!("{}:6001", Wire::PEER),
    );
    guest.ok(&format!(
        "wirecheck tcp-receive {ours} --seed 1 >/tmp/in 2>&1 & echo $! >/tmp/in.pid; \
         until grep -q listening /tmp/in; do usleep 50000; done"
    ));
    let receiver = wire
        .far_background(&wirecheck(&format!("tcp-receive {far} --seed 2")))
        .after_line("listening");
    guest.ok(&format!(
        "wirecheck tcp-send {far} --bytes {BYTES} --seed 2 >/tmp/out 2>&1 & echo $! >/tmp/out.pid"
    ));
    let sender = wire.far_background(&wirecheck(&format!(
        "tcp-send {ours} --bytes {BYTES} --seed 1"
    )));
    let deadline = Instant::now() + PATIENCE;
    let mut changes = 0;
    for (rx, tx) in next {
        guest.ok(&format!("ethtool -G eth0 rx {rx} tx {tx}"));
        assert_eq!(sizes(guest), (rx, tx));
        changes += 1;
        // One that has ended and was not waited for has no program.
        let busy = guest
            .run("readlink /proc/$(cat /tmp/in.pid)/exe || readlink /proc/$(cat /tmp/out.pid)/exe");
        if busy.status != 0 {
            break;
        }
        assert!(Instant::now() < deadline, "the traffic does not end");
    }
    sender.finish(PATIENCE);
    let report = receiver.finish(PATIENCE);
    assert!(report.contains(&format!("bytes={BYTES}")), "{report}");
    for name in ["in", "out"] {
        guest.ok(&format!(
            "wait $(cat /tmp/{name}.pid); s=$?; cat /tmp/{name}; [ $s = 0 ]"
        ));
    }
    changes
}

/// Ends the guest; nothing went wrong in it.
pub(crate) fn end(wire: &Wire, mut guest: Guest) {
    let messages = guest.ok("dmesg");
    assert!(!messages.contains("resize"), "{messages}");
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(!log.contains("went astray"), "{log}");
    assert_eq!(counter(&log, "guest_faults"), 0, "{log}");
    assert!(!wire.has_program(), "an XDP program was left: {log}");
}

#[test]
fn rings_are_resized_in_traffic() {
    let wire = Wire::with_queues(2);
    let mut guest = Guest::boot(Options::new().on_with(&wire, ",queues=2"));
    resizes(&wire, &mut guest);
    end(&wire, guest);
}

#[test]
#[ignore = "prints figures; docs/figures.md has them, and how to run this"]
fn measure_memory_of_resized_rings() {
    let wire = Wire::with_queues(3);
    let mut guest = Guest::boot(Options::new().on_with(&wire, ",queues=3"));
    guest.ok("ethtool -L eth0 combined 3");
    println!("at first: {} KiB of its own", guest.own_memory());
    for times in [20, 40, 60, 80] {
        guest.ok(
            "for i in $(seq 10); do ethtool -G eth0 rx 256 tx 256; ethtool -G eth0 rx 1024 tx 1024; done",
        );
        println!("after {times} changes of all rings: {}", guest.own_memory());
    }
    end(&wire, guest);
}
