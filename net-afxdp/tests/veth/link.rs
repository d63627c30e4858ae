//! The link monitor.

use std::{os::fd::AsFd, time::Instant};

use net_afxdp::{LinkEvent, LinkMonitor, LinkSpeed};
use rustix::event::PollFlags;

use crate::{
    net::{Net, ip, skipped, try_ip},
    packet::{PATIENCE, wait},
};

fn next(monitor: &mut LinkMonitor) -> Option<LinkEvent> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match monitor.next_event().unwrap() {
            Some(event) => return Some(event),
            None if Instant::now() > deadline => return None,
            None => wait(monitor.as_fd(), PollFlags::IN),
        }
    }
}

/// A monitor that has seen the link come up.
fn monitor(net: &Net) -> LinkMonitor {
    let mut monitor = LinkMonitor::open(net.interface().index()).unwrap();
    if !monitor.state().unwrap().up {
        assert_eq!(next(&mut monitor), Some(LinkEvent::Up));
    }
    monitor
}

#[test]
fn a_veth_pair_has_a_speed() {
    let Some(net) = Net::new() else { return };
    let LinkSpeed { mbps, full_duplex } = net.interface().link_speed();
    assert_eq!((mbps, full_duplex), (Some(10_000), Some(true)));
    let interface = net.interface();
    drop(net);
    assert_eq!(interface.link_speed(), LinkSpeed::default(), "it is gone");
}

#[test]
fn the_carrier_goes_and_comes_back() {
    let Some(net) = Net::new() else { return };
    let mut monitor = monitor(&net);
    assert_eq!(monitor.next_event().unwrap(), None);
    for end in [&net.far, &net.near] {
        ip(&format!("link set dev {end} down"));
        assert_eq!(next(&mut monitor), Some(LinkEvent::Down));
        assert!(!monitor.state().unwrap().up);
        ip(&format!("link set dev {end} up"));
        assert_eq!(next(&mut monitor), Some(LinkEvent::Up));
        assert!(monitor.state().unwrap().up);
    }
}

#[test]
fn mtu_and_name_change() {
    let Some(net) = Net::new() else { return };
    let mut monitor = monitor(&net);
    ip(&format!("link set dev {} mtu 1400", net.near));
    assert_eq!(next(&mut monitor), Some(LinkEvent::Mtu(1400)));
    // Renamed while up, which kernels before 6.2 refuse for most drivers.
    ip(&format!("link set dev {} down", net.near));
    assert_eq!(next(&mut monitor), Some(LinkEvent::Down));
    ip(&format!("link set dev {} name rwrenamed", net.near));
    assert_eq!(
        next(&mut monitor),
        Some(LinkEvent::Renamed("rwrenamed".to_owned()))
    );
    let state = monitor.state().unwrap();
    assert_eq!((state.mtu, state.name.as_str()), (1400, "rwrenamed"));
}

#[test]
fn the_end_of_an_interface_is_the_last_event() {
    let Some(net) = Net::new() else { return };
    let index = net.interface().index();
    let mut monitor = monitor(&net);
    ip(&format!("link del {}", net.near));
    let mut events = Vec::new();
    while let Some(event) = next(&mut monitor) {
        events.push(event);
        if events.last() == Some(&LinkEvent::Gone) {
            break;
        }
    }
    assert_eq!(events.last(), Some(&LinkEvent::Gone), "{events:?}");
    assert_eq!(monitor.state(), None);
    // A new interface of the same index is another one.
    ip(&format!(
        "link add rwagain index {index} type veth peer name rwpeer"
    ));
    ip("link set dev rwagain up");
    ip("link set dev rwpeer up");
    assert_eq!(monitor.next_event().unwrap(), None);
}

#[test]
fn other_interfaces_are_no_news() {
    let Some(net) = Net::new() else { return };
    let mut monitor = monitor(&net);
    ip("link add rwother type veth peer name rwpeer");
    ip("link set dev rwother up");
    ip("link del rwother");
    // A port that leaves a bridge makes a "deleted" message of its own kind.
    if try_ip("link add rwbridge type bridge") {
        ip(&format!("link set dev {} master rwbridge", net.near));
        ip(&format!("link set dev {} nomaster", net.near));
    } else {
        skipped("a bridge port among other interfaces: this kernel has no bridges");
    }
    assert_eq!(monitor.next_event().unwrap(), None);
    assert!(monitor.state().unwrap().up);
}

#[test]
fn a_storm_of_changes_ends_in_the_right_state() {
    let Some(net) = Net::new() else { return };
    let mut monitor = monitor(&net);
    // More messages than the socket's buffer holds.
    let batch: String = (0..2000)
        .map(|n| format!("link set dev {} mtu {}\n", net.near, 1000 + n % 400))
        .collect();
    let file = std::env::temp_dir().join(format!("net-afxdp-batch-{}", std::process::id()));
    std::fs::write(&file, batch).unwrap();
    ip(&format!("-batch {}", file.display()));
    std::fs::remove_file(&file).unwrap();
    ip(&format!("link set dev {} mtu 1234", net.near));
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match monitor.next_event().unwrap() {
            Some(_) => {}
            None => break,
        }
    }
    assert_eq!(monitor.state().unwrap().mtu, 1234);
}

#[test]
fn an_index_without_an_interface_is_refused() {
    let Some(_net) = Net::new() else { return };
    let error = LinkMonitor::open(4242).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
}
