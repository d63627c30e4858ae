//! How a VM ends, and what is left of it: nothing.

use std::time::{Duration, Instant};

use ringwire_tests::{Guest, Options, Wire};
use rustix::process::Signal;

#[test]
fn a_reboot_ends_with_status_0() {
    let mut guest = Guest::boot(Options::new());
    guest.send("reboot -f");
    let status = guest.wait();
    assert!(status.success(), "{status}: {}", guest.log());
}

#[test]
fn a_guest_panic_has_a_status_of_its_own() {
    let mut guest = Guest::boot(Options::new());
    guest.send("echo c >/proc/sysrq-trigger");
    let status = guest.wait();
    assert_eq!(status.code(), Some(3), "{status}: {}", guest.log());
    assert!(guest.log().contains("panic"), "{}", guest.log());
}

/// Traffic both ways that goes on until somebody ends it.
fn with_traffic(wire: &Wire) -> (Guest, ringwire_tests::Background) {
    let server = wire
        .far_background("iperf3 --server --forceflush")
        .after_line("listening");
    let mut guest = Guest::boot(Options::new().on(wire));
    guest.ok(&format!(
        "iperf3 -c {} -t 60 --bidir >/tmp/iperf 2>&1 &",
        Wire::PEER
    ));
    guest.ok("for i in $(seq 300); do grep -q sec /tmp/iperf && break; usleep 100000; done; grep -q sec /tmp/iperf");
    (guest, server)
}

/// 45, 42, 52: neither end leaves anything behind, and the next one gets the queue.
#[test]
fn sigkill_and_sigterm_in_traffic_leave_nothing_behind() {
    let wire = Wire::new();
    let (mut guest, server) = with_traffic(&wire);
    guest.signal(Signal::KILL);
    guest.wait();
    drop(server);
    // The kernel detaches when the last file is gone, which may be a moment after the process.
    let deadline = Instant::now() + Duration::from_secs(20);
    while wire.has_program() {
        assert!(
            Instant::now() < deadline,
            "an XDP program was left on the interface"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    // The queue is free again: the next one gets it, if need be after the kernel has let go of it.
    let (mut next, _server) = with_traffic(&wire);
    let started = Instant::now();
    next.signal(Signal::TERM);
    let status = next.wait();
    // Not asserted: the host may be an emulated one. It is on record.
    println!("SIGTERM to exit: {:?}, {status}", started.elapsed());
    assert_eq!(status.code(), Some(128 + 15), "{status}: {}", next.log());
    assert!(
        !wire.has_program(),
        "an XDP program was left on the interface"
    );
}
