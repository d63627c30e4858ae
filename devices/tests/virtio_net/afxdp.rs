#![expect(
    unsafe_code,
    reason = "moves the test's thread into a network namespace of its own"
)]
//! The card on AF_XDP, on real veth pairs: the other end is a second AF_XDP port.

use std::{process::Command, thread};

use devices::{
    testing::{register, wait_for},
    virtio::net::afxdp::AfXdpBackend,
};
use net_afxdp::{AttachMode, Port, PortConfig};

use crate::guest::*;

/// Bytes of the longest frame at an MTU of 1500.
const LONGEST: usize = 1514;

/// A veth pair in a namespace that only this thread is in: it goes away with it, also when the test
/// is killed. `None`, and a line that says so, without root.
pub(crate) fn veth() -> Option<(String, String)> {
    veth_with(1)
}

/// The same with so many queues each way: what is sent on one end's queue arrives on the same
/// queue of the other.
pub(crate) fn veth_with(queues: u32) -> Option<(String, String)> {
    if !rustix::process::geteuid().is_root() {
        let test = thread::current().name().unwrap_or("?").to_owned();
        eprintln!("SKIPPED {test}: making a network namespace needs root");
        return None;
    }
    // SAFETY: affects the calling thread alone.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    // No router solicitations among the test's frames.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let name = |end: &str| format!("rwd{end}{}", std::process::id() % 100_000);
    let (near, far) = (name("n"), name("f"));
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!(
        "link add {near} {queues} type veth peer name {far} {queues}"
    ));
    ip(&format!("link set dev {near} up"));
    ip(&format!("link set dev {far} up"));
    Some((near, far))
}

pub(crate) fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {said}");
}

pub(crate) fn open(ifname: String, mode: AttachMode) -> (Port, AfXdpBackend) {
    let (port, mut queues) = open_queues(ifname, mode, 1);
    (port, queues.pop().unwrap())
}

pub(crate) fn open_queues(
    ifname: String,
    mode: AttachMode,
    queues: u32,
) -> (Port, Vec<AfXdpBackend>) {
    open_config(&PortConfig {
        ifname,
        mode: Some(mode),
        frames: 512,
        queues,
        ..PortConfig::default()
    })
}

pub(crate) fn open_config(config: &PortConfig) -> (Port, Vec<AfXdpBackend>) {
    let mut port = Port::open(config).unwrap();
    let queues = port.take_queues().into_iter().map(AfXdpBackend).collect();
    (port, queues)
}

fn carries_traffic(name: &str, mode: AttachMode) {
    let Some((near, far)) = veth() else { return };
    let (_near_port, backend) = open(near, mode);
    let (_far_port, wire) = open(far, mode);
    let mut guest = NetGuest::plug_on(name, backend, wire);
    guest.longest = LONGEST;
    for round in 0..20 {
        guest.boot();
        guest.check_traffic();
        // More than the frame memory holds, so that every frame is used again.
        for seed in 0..100 {
            let frame = pattern(64 + (seed * 37 + round) % 1400, seed);
            guest.post(512);
            guest.post(512);
            guest.post(512);
            guest.inject(&frame);
            assert_eq!(guest.received(), frame);
            guest.transmit(&frame);
            assert_eq!(guest.sent(), frame);
            if seed % 20 == 19 {
                // Buffers that were not needed stay posted: start with an empty ring again.
                guest.boot();
            }
        }
    }
    guest.driver.write(register::STATUS, 0);
    let reports = guest.control.reports();
    let frames = reports[0].frames.unwrap();
    assert_eq!(frames.total, 512);
    assert!(frames.adds_up(), "{frames:?}");
    let named = |name| {
        reports[0]
            .counters
            .iter()
            .find(|(n, _)| *n == name)
            .unwrap()
            .1
    };
    let counters = guest.control.counters();
    assert_eq!(counters.rx_frames, named("rx_packets"));
    assert_eq!(counters.tx_frames, named("tx_packets"));
    assert_eq!((named("tx_lost"), named("invalid_descriptors")), (0, 0));
    assert_eq!(named("xdp_tx_invalid_descs"), 0);
    guest.assert_sound();
}

#[test]
fn carries_traffic_in_native_mode() {
    carries_traffic("tnative", AttachMode::Native);
}

#[test]
fn carries_traffic_in_skb_mode() {
    carries_traffic("tskb", AttachMode::Skb);
}

/// 35: ten thousand resets in the middle of bursts both ways: every frame of the memory is where it
/// belongs, each time.
#[test]
fn resets_under_load_lose_no_frame_memory() {
    let Some((near, far)) = veth() else { return };
    let (_near_port, backend) = open(near, AttachMode::Native);
    let (_far_port, wire) = open(far, AttachMode::Native);
    let mut guest = NetGuest::plug_on("txreset", backend, wire);
    for round in 0..10_000 {
        guest.boot();
        // Long bursts now and then; short ones leave the time to the resets.
        let burst = if round % 50 == 0 { 32 } else { 4 };
        for seed in 0..burst {
            guest.post(2048);
            guest.queue_bytes(&with_header(&pattern(1000, seed)));
            guest.inject(&pattern(1000, seed));
        }
        if round % 2 == 0 {
            guest.tx.wait_used();
        }
        guest.driver.write(register::STATUS, 0);
        let frames = guest.control.reports()[0].frames.unwrap();
        assert!(frames.adds_up(), "round {round}: {frames:?}");
        while take(&mut guest.wire).is_some() {}
    }
    guest.longest = LONGEST;
    guest.boot();
    while take(&mut guest.wire).is_some() {}
    guest.check_traffic();
}

/// 37: the link goes down and comes back. Nothing spins, and traffic is there again.
#[test]
fn a_link_that_comes_back_works_again() {
    let Some((near, far)) = veth() else { return };
    let (_near_port, backend) = open(near.clone(), AttachMode::Native);
    let (_far_port, wire) = open(far, AttachMode::Native);
    let mut guest = NetGuest::plug_on("txdown", backend, wire);
    guest.longest = LONGEST;
    guest.boot();
    guest.check_traffic();
    ip(&format!("link set dev {near} down"));
    guest.transmit(&pattern(64, 1));
    wait_for("the error", || {
        (guest.control.counters().tx_carrier_errors > 0).then_some(())
    });
    assert_idle("txdown");
    ip(&format!("link set dev {near} up"));
    assert_eq!(guest.sent(), pattern(64, 1));
    guest.check_traffic();
    guest.assert_sound();
}

/// The wire brings more than the guest has buffers for: the rest is dropped in the kernel, the
/// thread sleeps, and transmit goes on (54).
#[test]
fn a_guest_without_buffers_costs_nothing() {
    let Some((near, far)) = veth() else { return };
    let (_near_port, backend) = open(near, AttachMode::Native);
    let (_far_port, wire) = open(far, AttachMode::Native);
    let mut guest = NetGuest::plug_on("txfull", backend, wire);
    guest.longest = LONGEST;
    guest.boot();
    for seed in 0..1000 {
        guest.inject(&pattern(64, seed));
    }
    assert_idle("txfull");
    guest.transmit(&pattern(64, 1));
    assert_eq!(guest.sent(), pattern(64, 1));
    guest.post(2048);
    assert_eq!(guest.received(), pattern(64, 0), "the oldest was kept");
    guest.boot();
    assert!(guest.control.counters().rx_early > 100);
    guest.check_traffic();
}
