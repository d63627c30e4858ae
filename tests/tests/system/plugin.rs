//! A program of others: in the way, handing out its map as the device plugin for Kubernetes does, and replaced.

#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests of net-afxdp need servers that misbehave, and unwrap"
)]
#[path = "../../../net-afxdp/tests/veth/plugin_server.rs"]
mod plugin_server;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use libbpf_rs::{MapHandle, Object, ObjectBuilder, Xdp, XdpFlags};
use ringwire_tests::{Guest, Options, Setup, Wire};

use crate::faults::{assert_passes, end, traffic};
use crate::flood::NOBODY;
use plugin_server::{Reply, Server};

/// A loaded XDP program with a map of sockets, on no interface yet.
struct Program(Object);

impl Program {
    fn load() -> Self {
        let mut builder = ObjectBuilder::default();
        let object = builder.open_file(Setup::xsk_object());
        Self(
            object
                .expect("cargo built it")
                .load()
                .expect("root may load it"),
        )
    }

    /// Puts it on the interface of that index, in place of what is there.
    fn attach(&self, index: i32) {
        let program = self.0.progs().next().expect("there is one");
        Xdp::new(program.as_fd())
            .attach(index, XdpFlags::DRV_MODE)
            .expect("veth runs it");
    }

    fn map(&self) -> OwnedFd {
        let map = self.0.maps().next().expect("there is one");
        let map = MapHandle::try_from(&map).expect("it is loaded");
        map.as_fd().try_clone_to_owned().expect("a descriptor")
    }
}

fn index(wire: &Wire) -> i32 {
    let text = wire.near(&format!("cat /sys/class/net/{}/ifindex", Wire::IFNAME));
    text.trim().parse().expect("a number")
}

/// 44: named, and left alone.
fn assert_refused(wire: &Wire) {
    let mut guest = Guest::start(&Options::new().on(wire));
    let status = guest.wait();
    let log = guest.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("ringwire_xsk"), "the program is named: {log}");
    assert!(wire.has_program(), "{log}");
}

/// Frames that come out at the far end in a second, while the guest sends all it can.
fn sent_in_a_second(wire: &Wire, guest: &mut Guest) -> f64 {
    let count = || {
        let path = format!("/sys/class/net/{}/statistics/rx_packets", Wire::PEER_IFNAME);
        let text = wire.far(&format!("cat {path}"));
        text.trim().parse::<u32>().expect("a number")
    };
    // Not to an address of the far end, which would answer that it does not want it.
    let mac = wire.far(&format!("cat /sys/class/net/{}/address", Wire::PEER_IFNAME));
    guest.ok(&format!("arp -i eth0 -s {NOBODY} {}", mac.trim()));
    guest.ok(&format!(
        "wirecheck udp-send {NOBODY}:9 --count 100000000 --burst 0 --largest 100 >/dev/null 2>&1 & echo $! >/tmp/flood"
    ));
    // What was saved up for a burst is gone then.
    std::thread::sleep(Duration::from_secs(1));
    let (start, before) = (Instant::now(), count());
    std::thread::sleep(Duration::from_secs(4));
    let (sent, window) = (count() - before, start.elapsed());
    guest.ok("kill $(cat /tmp/flood)");
    f64::from(sent) / window.as_secs_f64()
}

/// 44, 56, `plugin-socket`.
#[test]
fn a_guest_on_the_map_of_a_device_plugin_whose_program_is_replaced() {
    let wire = Wire::new();
    // This thread attaches programs, so it is where the interface is.
    let index = index(&wire);
    wire.enter(true);
    let theirs = Program::load();
    theirs.attach(index);
    assert_refused(&wire);

    let server = Server::start(vec![
        Reply::Text("/host_ok"),
        Reply::With("/fd_ack", vec![theirs.map()]),
        Reply::Text("/fin_ack"),
    ]);
    let keys = format!(
        ",inhibit=on,rate=200,plugin-socket={}",
        server.path.display()
    );
    let mut guest = Guest::boot(Options::new().on_with(&wire, &keys));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("proc is mounted");
    assert_eq!(
        server.requests(),
        [
            format!("/connect,{}", host.trim()),
            format!("/xsk_map_fd,{}", Wire::IFNAME),
            "/fin".to_owned()
        ]
    );
    assert_passes(&wire, &mut guest);
    let rate = sent_in_a_second(&wire, &mut guest);
    println!("rate=200: {rate:.0} frames a second while the guest floods");
    assert!((100.0..210.0).contains(&rate), "{rate} frames a second");

    let traffic = traffic(&wire, &mut guest);
    assert_passes(&wire, &mut guest);
    let another = Program::load();
    another.attach(index);
    guest.wait_for_log("another XDP program took the place of the one on");
    guest.assert_idle("program replaced");
    // Its map is empty, so what comes goes to the host.
    assert_ne!(
        guest
            .run(&format!("ping -q -c 2 -W 2 {}", Wire::PEER))
            .status,
        0
    );
    theirs.attach(index);
    guest.wait_for_log("is back");
    assert_passes(&wire, &mut guest);
    drop(traffic);
    let log = end(guest);
    assert!(
        !log.contains(" tx_limited=0"),
        "the guest was slower: {log}"
    );
    assert!(wire.has_program(), "it is theirs, and stays");
}
