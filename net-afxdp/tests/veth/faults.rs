//! What happens to an interface while frames pass both ways: they pass again when the cause is gone, all
//! memory is accounted for, and meanwhile the queue asks little of the kernel.

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use net_afxdp::{AttachMode, LinkEvent, LinkMonitor, Port, PortConfig};
use rustix::event::PollFlags;

use crate::{
    child,
    load::Traffic,
    net::{Net, ip, skipped, try_ip},
    packet::{PATIENCE, Packet, frame, wait},
    traffic::{MODES, config, open},
};

/// Waits for this event of the link.
fn expect(monitor: &mut LinkMonitor, wanted: &LinkEvent) {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while Instant::now() < deadline {
        match monitor.next_event().unwrap() {
            Some(event) if event == *wanted => return,
            Some(event) => seen.push(event),
            None => wait(monitor.as_fd(), PollFlags::IN),
        }
    }
    panic!("no {wanted:?} among {seen:?}");
}

fn small(net: &Net) -> PortConfig {
    PortConfig {
        frames: 256,
        ..config(&net.near)
    }
}

/// An interface in that mode, or in the one that it takes by itself, with traffic, and what tells of its link.
fn busy(net: &Net, mode: Option<AttachMode>) -> (Port, LinkMonitor, Traffic) {
    let (port, queue) = open(&PortConfig { mode, ..small(net) });
    let monitor = LinkMonitor::open(port.interface().index()).unwrap();
    let traffic = Traffic::start(queue, Packet::open(&net.far));
    (port, monitor, traffic)
}

#[test]
fn links_that_flap_stop_the_traffic_and_let_it_go_on() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let (_port, mut monitor, traffic) = busy(&net, Some(mode));
        for round in 0..6 {
            let end = [&net.near, &net.far][round % 2];
            ip(&format!("link set dev {end} down"));
            expect(&mut monitor, &LinkEvent::Down);
            thread::sleep(Duration::from_millis(100));
            ip(&format!("link set dev {end} up"));
            expect(&mut monitor, &LinkEvent::Up);
            traffic.assert_passes();
        }
        let served = traffic.stop();
        // With the peer down, frames are lost; with the own end down, they wait.
        assert!(
            served.errors == BTreeSet::from([libc::ENETDOWN]),
            "{served:?}"
        );
        assert!(served.queue.counters().tx_lost > 0, "{served:?}");
    }
}

#[test]
fn a_new_mtu_under_traffic_changes_nothing_for_frames_that_fit() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let (_port, mut monitor, traffic) = busy(&net, Some(mode));
        for mtu in [600, 1400, 1500] {
            ip(&format!("link set dev {} mtu {mtu}", net.near));
            ip(&format!("link set dev {} mtu {mtu}", net.far));
            expect(&mut monitor, &LinkEvent::Mtu(mtu));
            traffic.assert_passes();
        }
        let served = traffic.stop();
        assert!(served.errors.is_empty(), "{served:?}");
    }
}

#[test]
fn a_new_name_under_traffic_changes_nothing() {
    let Some(net) = Net::new() else { return };
    let (port, mut monitor, traffic) = busy(&net, None);
    if !try_ip(&format!("link set dev {} name rwother", net.near)) {
        skipped("a new name for an interface that is up: this kernel (before 6.2) refuses it");
        drop(traffic.stop());
        return;
    }
    expect(&mut monitor, &LinkEvent::Renamed("rwother".to_owned()));
    traffic.assert_passes();
    assert!(traffic.stop().errors.is_empty());
    assert_eq!(port.mode(), AttachMode::Native);
}

#[test]
fn an_interface_deleted_under_traffic_is_noticed_and_leaves_no_frame_behind() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        ip(&format!("link del {}", net.near));
        ip(&format!(
            "link add {} type veth peer name {}",
            net.near, net.far
        ));
        ip(&format!("link set dev {} up", net.near));
        ip(&format!("link set dev {} up", net.far));
        let (mut port, mut monitor, traffic) = busy(&net, Some(mode));
        let start = Instant::now();
        ip(&format!("link del {}", net.near));
        expect(&mut monitor, &LinkEvent::Gone);
        eprintln!(
            "{mode}: noticed {:?} after `ip link del` began",
            start.elapsed()
        );
        traffic.assert_fails_with(&[libc::ENXIO]);
        let served = traffic.stop();
        assert!(port.take_queues().is_empty());
        drop((port, served));
        ip(&format!(
            "link add {} type veth peer name {}",
            net.near, net.far
        ));
    }
}

#[test]
fn an_interface_moved_away_under_traffic_is_noticed_and_can_be_opened_when_it_is_back() {
    let Some(net) = Net::new() else { return };
    let (mut port, mut monitor, traffic) = busy(&net, None);
    let mut other = Command::new("unshare")
        .args(["-n", "sleep", "600"])
        .spawn()
        .unwrap();
    let comm = format!("/proc/{}/comm", other.id());
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string(&comm).unwrap() != "sleep\n" && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    ip(&format!("link set dev {} netns {}", net.near, other.id()));
    expect(&mut monitor, &LinkEvent::Gone);
    traffic.assert_fails_with(&[libc::ENXIO, libc::ENETDOWN]);
    let served = traffic.stop();
    let there = |words: &str| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", other.id()));
        let output = command.args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let show = format!("ip -details link show dev {}", net.near);
    assert!(there(&show).contains("xdp"), "the program goes along");
    port.let_go();
    assert!(!there(&show).contains("xdp"), "the program is still there");
    let this = rustix::thread::gettid().as_raw_nonzero();
    there(&format!("ip link set dev {} netns {this}", net.near));
    other.kill().unwrap();
    other.wait().unwrap();
    ip(&format!("link set dev {} up", net.near));
    // The queue of before is none of the interface any more, so it is not in the way.
    let (_new_port, queue) = open(&small(&net));
    Traffic::start(queue, Packet::open(&net.far)).stop();
    drop((port, served));
}

#[test]
fn fewer_channels_than_queues_in_use_are_refused() {
    let Some(net) = Net::with_queues(4) else {
        return;
    };
    let mut port = Port::open(&PortConfig {
        start_queue: 2,
        queues: 1,
        ..small(&net)
    })
    .unwrap();
    let queue = port.take_queues().remove(0);
    let set = |interface: &str, rx: u32, tx: u32| {
        let output = Command::new("ethtool")
            .args([
                "-L",
                interface,
                "rx",
                &rx.to_string(),
                "tx",
                &tx.to_string(),
            ])
            .output()
            .expect("ethtool");
        output.status.success()
    };
    // veth refuses to have fewer receive queues than the peer sends from.
    assert!(set(&net.far, 4, 1));
    let channels = |count| set(&net.near, count, count);
    assert!(!channels(1) && !channels(2), "below the queue in use");
    assert_eq!(net.interface().queues(), 4);
    // Those above it may go.
    assert!(channels(3));
    assert_eq!(net.interface().queues(), 3);
    drop((port, queue));
    let deadline = Instant::now() + PATIENCE;
    while !channels(1) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(net.interface().queues(), 1);
    let (_port, queue) = open(&small(&net));
    drop(queue);
}

#[test]
fn a_process_killed_under_a_flood_leaves_the_interface_free() {
    let Some(net) = Net::new() else { return };
    for _ in 0..3 {
        let mut child = child::start("hold", &net.near);
        assert_eq!(child::line(&mut child), "open in native mode");
        let far = Packet::open(&net.far);
        let stop = Arc::new(AtomicBool::new(false));
        let flood = thread::spawn({
            let stop = stop.clone();
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = far.send(&frame(1, 1000));
                }
                far
            }
        });
        thread::sleep(Duration::from_millis(50));
        child.kill().unwrap();
        child.wait().unwrap();
        stop.store(true, Ordering::Relaxed);
        let far = flood.join().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while net.interface().xdp_program().is_some() {
            assert!(Instant::now() < deadline, "the program stays");
            thread::sleep(Duration::from_millis(5));
        }
        let (_port, queue) = open(&small(&net));
        Traffic::start(queue, far).stop();
    }
}

#[test]
fn a_queue_that_nobody_serves_for_a_while_loses_frames_and_goes_on() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let (_port, queue) = open(&PortConfig {
            mode: Some(mode),
            ..small(&net)
        });
        let far = Packet::open(&net.far);
        for number in 0..5000 {
            far.send(&frame(number % 100, 100)).unwrap();
        }
        let statistics = queue.statistics().unwrap();
        let lost = statistics.rx_dropped + statistics.rx_fill_ring_empty_descs;
        assert!(lost + statistics.rx_ring_full > 0, "{statistics:?}");
        let accounting = queue.accounting();
        assert!(
            accounting.is_balanced() && accounting.rx <= 128,
            "{accounting:?}"
        );
        Traffic::start(queue, far).stop();
    }
}
