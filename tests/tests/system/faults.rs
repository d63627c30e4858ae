//! What happens to the interface while the guest has traffic both ways: the VM lives, the guest sees the state of its
//! link, nothing spins, no frame is lost track of, and traffic comes back with the cause gone.

use std::thread;
use std::time::{Duration, Instant};

use ringwire_tests::{Background, Guest, Options, Setup, Wire, assert_frames_add_up, by_pair};
use rustix::process::Signal;

const NEAR: &str = Wire::IFNAME;
const FAR: &str = Wire::PEER_IFNAME;

/// Traffic that goes on by itself, whatever happens to it.
pub(crate) fn traffic(wire: &Wire, guest: &mut Guest) -> Background {
    guest.ok(&format!(
        "(while :; do ping -q -i 0.02 -s 1000 {}; usleep 50000; done) >/dev/null 2>&1 &",
        Wire::PEER
    ));
    wire.far_background(&format!("ping -q -i 0.02 -s 200 {}", Wire::GUEST))
}

/// Frames pass both ways, or will in a while.
pub(crate) fn assert_passes(wire: &Wire, guest: &mut Guest) {
    guest.ok(&format!(
        "for i in $(seq 60); do ping -q -c 1 -W 1 {0} >/dev/null && break; done; ping -q -c 2 -W 10 {0}",
        Wire::PEER
    ));
    // Until three are answered.
    wire.far(&format!("ping -q -c 3 -i 0.2 -w 60 {}", Wire::GUEST));
}

/// Switches off, and returns what `ringwire` has said. All frames are where they belong.
pub(crate) fn end(mut guest: Guest) -> String {
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert_frames_add_up(&log);
    log
}

/// What the kernel had no room for, of all that the log tells.
pub(crate) fn dropped(log: &str) -> u64 {
    let names = [
        "xdp_rx_dropped",
        "xdp_rx_ring_full",
        "xdp_rx_fill_ring_empty",
    ];
    names.into_iter().flat_map(|name| by_pair(log, name)).sum()
}

fn near_goes(wire: &Wire, guest: &mut Guest, name: &str, new_name: &str) {
    wire.near(&format!("ip link set {name} down"));
    guest.wait_for_link(false);
    // Kernels before 6.2 rename no interface that is up.
    wire.near(&format!("ip link set {name} name {new_name}"));
    guest.wait_for_log(&format!("its interface is now called {new_name}"));
}

/// 37, 39: link down and up at either end, and a new name.
fn flap(wire: &Wire, guest: &mut Guest) {
    near_goes(wire, guest, NEAR, "wire9");
    guest.assert_idle("own end down");
    wire.near("ip link set wire9 up");
    guest.wait_for_link(true);
    assert_passes(wire, guest);

    wire.far(&format!("ip link set {FAR} down"));
    guest.wait_for_link(false);
    guest.assert_idle("far end down");
    wire.far(&format!("ip link set {FAR} up"));
    guest.wait_for_link(true);
    assert_passes(wire, guest);

    near_goes(wire, guest, "wire9", NEAR);
    wire.near(&format!("ip link set {NEAR} up"));
    guest.wait_for_link(true);
    assert_passes(wire, guest);
}

/// 40: a smaller and a larger MTU. The guest keeps the one that it was started with; what is too long for the far
/// end is lost, and nothing else.
fn change_mtu(wire: &Wire, guest: &mut Guest) {
    let set = |near: u32, far: u32| {
        wire.near(&format!("ip link set {NEAR} mtu {near}"));
        wire.far(&format!("ip link set {FAR} mtu {far}"));
    };
    let long = format!("ping -q -c 3 -i 0.2 -W 2 -s 1400 {}", Wire::PEER);
    set(1300, 1300);
    guest.wait_for_log("its interface has a new MTU, 1300");
    assert_ne!(guest.run(&long).status, 0, "1442 bytes over an MTU of 1300");
    assert_passes(wire, guest);
    set(2000, 2000);
    guest.wait_for_log("its interface has a new MTU, 2000");
    guest.ok(&long);
    assert_passes(wire, guest);
    set(1500, 1500);
    assert_eq!(guest.ok("cat /sys/class/net/eth0/mtu").trim(), "1500");
    guest.ok(&long);
}

/// 53: all of ringwire stands still for 10 s, with more coming in than its rings hold.
fn stop_and_go_on(wire: &Wire, guest: &mut Guest) {
    guest.signal(Signal::STOP);
    let flood = wire.far_background(&format!("ping -q -i 0.001 -s 100 {}", Wire::GUEST));
    thread::sleep(Duration::from_secs(10));
    drop(flood);
    guest.signal(Signal::CONT);
    assert_passes(wire, guest);
}

/// 37, 39, 40, 53, 47.
#[test]
fn the_link_the_name_and_the_mtu_change_and_the_process_is_stopped_for_a_while() {
    let wire = Wire::new();
    // Few, so that a stopped process has no room for what comes in 10 s.
    let mut guest = Guest::boot(Options::new().on_with(&wire, ",frames=256"));
    let traffic = traffic(&wire, &mut guest);
    assert_passes(&wire, &mut guest);
    flap(&wire, &mut guest);
    change_mtu(&wire, &mut guest);
    stop_and_go_on(&wire, &mut guest);
    drop(traffic);
    let log = end(guest);
    assert!(by_pair(&log, "tx_lost")[0] > 0, "over the MTU: {log}");
    assert!(dropped(&log) > 0, "while it was stopped: {log}");
    assert_eq!(by_pair(&log, "xdp_tx_invalid_descs"), [0], "{log}");
    assert!(!wire.has_program(), "{log}");
}

/// 38: the kernel parts a socket from an interface that moves, for good. So the link stays down in the guest when the
/// interface is back, and the next ringwire can have it.
#[test]
fn an_interface_that_is_moved_away_and_back_is_free_for_the_next_one() {
    let wire = Wire::new();
    let mut guest = Guest::boot(Options::new().on(&wire));
    let traffic = traffic(&wire, &mut guest);
    assert_passes(&wire, &mut guest);
    wire.take_away();
    guest.wait_for_log("its interface is gone");
    guest.wait_for_link(false);
    guest.assert_idle("interface moved away");
    // Where it is now it serves others.
    let there = format!("ip -details link show {NEAR}");
    let deadline = Instant::now() + Duration::from_secs(30);
    while wire.far(&there).contains("prog/xdp") {
        assert!(
            Instant::now() < deadline,
            "the program went along and stays"
        );
        thread::sleep(Duration::from_millis(50));
    }
    wire.bring_back();
    let check = format!(
        "{} check af-xdp,ifname={NEAR} --try",
        Setup::ringwire().display()
    );
    let answer = wire.near(&check);
    assert!(answer.contains("yes, nothing is in the way"), "{answer}");
    guest.wait_for_link(false);
    drop(traffic);
    end(guest);
}

/// 38.
#[test]
fn the_vm_lives_on_when_its_interface_is_deleted() {
    let wire = Wire::new();
    let mut guest = Guest::boot(Options::new().on(&wire));
    let traffic = traffic(&wire, &mut guest);
    assert_passes(&wire, &mut guest);
    wire.near(&format!("ip link delete {NEAR}"));
    guest.wait_for_link(false);
    guest.assert_idle("interface deleted");
    drop(traffic);
    end(guest);
}
