//! More from the wire than the guest takes: before it is ready, while its card is down, while its driver starts again.

use std::thread;
use std::time::{Duration, Instant};

use ringwire_tests::{Background, Guest, Options, Setup, Wire};
use rustix::process::Signal;

use crate::faults::{assert_passes, dropped, end};

const MAC: &str = "02:00:00:00:78:02";

/// Nobody has this address, so that nobody answers what is sent there.
pub(crate) const NOBODY: &str = "10.78.0.77";

/// Some 3000 datagrams a second, by the guest's MAC address and not for its own IP address: they come from the first
/// moment on, and have no answer that would end them.
fn flood(wire: &Wire) -> Background {
    let far = Wire::PEER_IFNAME;
    let neighbour = format!("{NOBODY} lladdr {MAC} dev {far} nud permanent");
    wire.far(&format!("ip neigh replace {neighbour}"));
    wire.far_background(&format!(
        "{} udp-send {NOBODY}:9 --count 100000000 --burst 32 --gap 10000 --largest 600",
        Setup::wirecheck().display(),
    ))
}

fn has_thread(guest: &Guest, wanted: &str) -> bool {
    guest.threads().iter().any(|(name, _)| name == wanted)
}

/// From the start of the vCPUs to DRIVER_OK, which is when the io-thread starts.
fn watch_the_boot(guest: &mut Guest) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !has_thread(guest, "vcpu0") {
        assert!(Instant::now() < deadline, "{}", guest.log());
        thread::sleep(Duration::from_millis(5));
    }
    let (start, before) = (Instant::now(), guest.own_cpu_time());
    let mut last = (start, before);
    while !has_thread(guest, "net0") {
        last = (Instant::now(), guest.own_cpu_time());
        assert!(last.0 < deadline, "{}", guest.log());
        thread::sleep(Duration::from_millis(50));
    }
    let (window, used) = (last.0 - start, last.1.saturating_sub(before));
    println!("before DRIVER_OK: {used:?} of CPU time in {window:?}");
    assert!(used < window / 2, "{used:?} of CPU time in {window:?}");
    guest.wait_for("ringwire-guest: ready");
}

/// The kernel's count of frames that went to the guest's interface.
fn flooded(wire: &Wire) -> u64 {
    let file = "statistics/tx_packets";
    let text = wire.far(&format!("cat /sys/class/net/{}/{file}", Wire::PEER_IFNAME));
    text.trim().parse().expect("a number")
}

/// It answers to its control signal, by logging counters.
fn assert_answers(guest: &Guest, times: usize) {
    guest.signal(Signal::USR1);
    let deadline = Instant::now() + Duration::from_secs(30);
    while guest.log().matches("netdev 'net0': guest, on").count() < times {
        assert!(Instant::now() < deadline, "{}", guest.log());
        thread::sleep(Duration::from_millis(10));
    }
}

fn counter(log: &str, name: &str) -> u64 {
    let line = log
        .lines()
        .rfind(|line| line.contains("netdev 'net0': guest"));
    let mut words = line.unwrap_or_default().split_whitespace();
    let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let value = value.and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no {name}: {log}"))
}

/// 47, 54, 55, 35.
#[test]
fn a_flood_at_the_wrong_time_costs_little_and_ends_with_the_flood() {
    let wire = Wire::new();
    let flood = flood(&wire);
    let options = Options::new()
        .arg("--device")
        .arg(format!("virtio-net-pci,netdev=net0,mac={MAC}"));
    let mut guest = Guest::start(&options.on(&wire));
    watch_the_boot(&mut guest);
    assert_answers(&guest, 1);

    // No buffers: Linux posts none while the card is down, and has left those of before to us.
    guest.ok("ip link set eth0 down");
    thread::sleep(Duration::from_secs(2));
    let (resident, before) = (guest.resident(), flooded(&wire));
    guest.assert_idle("no buffers posted");
    let came = flooded(&wire) - before;
    println!("{came} frames came meanwhile");
    assert!(came > 100, "the flood has ended");
    let grown = guest.resident().saturating_sub(resident);
    assert!(grown < 4096, "{grown} KiB more memory");
    assert_answers(&guest, 2);

    // The driver resets the device, and sets it up anew, several times.
    let module = "/modules/$(sed -n 's/^virtio_net //p' /modules/order)";
    for _ in 0..3 {
        guest.ok(&format!("rmmod virtio_net && insmod {module}"));
    }
    guest.ok(&format!("ip address add {}/24 dev eth0", Wire::GUEST));
    guest.ok("ip link set eth0 up");
    assert_answers(&guest, 3);
    drop(flood);
    assert_passes(&wire, &mut guest);
    let log = end(guest);
    assert!(counter(&log, "rx_early") > 0, "{log}");
    assert!(counter(&log, "rx_starved") > 0, "{log}");
    assert!(dropped(&log) > 0, "{log}");
}
