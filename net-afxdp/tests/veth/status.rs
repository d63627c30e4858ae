//! What becomes of the XDP program and the interface, while opening and later.

use std::time::{Duration, Instant};

use libbpf_rs::XdpFlags;
use net_afxdp::{LinkEvent, LinkMonitor, Port, PortConfig, Prepared, ProgramStatus, Source};

use crate::{
    child,
    foreign::{Foreign, socket},
    net::{Net, detach_link, ip},
    packet::PATIENCE,
    traffic::config,
};

fn small(net: &Net) -> PortConfig {
    PortConfig {
        frames: 64,
        ..config(&net.near)
    }
}

/// The changes of programs that the kernel has announced.
fn announced(monitor: &mut LinkMonitor) -> Vec<Option<u32>> {
    let mut programs = Vec::new();
    while let Some(event) = monitor.next_event().unwrap() {
        if let LinkEvent::Program(program) = event {
            programs.push(program.map(|program| program.id));
        }
    }
    programs
}

#[test]
fn our_own_program_can_t_be_replaced() {
    let Some(net) = Net::new() else { return };
    let mut port = Port::open(&small(&net)).unwrap();
    let object = concat!(env!("OUT_DIR"), "/xsk.bpf.o");
    for words in ["xdp off", &format!("xdp obj {object} sec xdp")] {
        let force = format!("-force link set dev {} {words}", net.near);
        assert!(!crate::net::try_ip(&force), "{force}");
        assert_eq!(port.program_status().unwrap(), ProgramStatus::InPlace);
    }
}

#[test]
fn our_own_program_can_be_detached_and_that_is_noticed() {
    let Some(net) = Net::new() else { return };
    let mut port = Port::open(&small(&net)).unwrap();
    let index = net.interface().index();
    detach_link(net.interface().xdp_program().unwrap().id);
    assert_eq!(port.program_status().unwrap(), ProgramStatus::Gone);
    let _other = Foreign::attach(index, 1, XdpFlags::DRV_MODE);
    let status = port.program_status().unwrap();
    assert!(matches!(status, ProgramStatus::Replaced(_)), "{status:?}");
    // What is not ours any more is left alone.
    drop(port);
    assert!(net.interface().xdp_program().is_some());
}

#[test]
fn a_program_that_goes_or_is_replaced_is_noticed() {
    let Some(net) = Net::new() else { return };
    let index = net.interface().index();
    let first = Foreign::attach(index, 1, XdpFlags::DRV_MODE);
    let mut port = Port::open_from(&small(&net), Source::Map(first.map_fd())).unwrap();
    let mut monitor = LinkMonitor::open(index).unwrap();
    assert_eq!(port.program_status().unwrap(), ProgramStatus::InPlace);
    announced(&mut monitor);

    let second = Foreign::attach(index, 1, XdpFlags::DRV_MODE);
    let id = net.interface().xdp_program().unwrap().id;
    match port.program_status().unwrap() {
        ProgramStatus::Replaced(program) => assert_eq!((program.id, program.mode), (id, "native")),
        other => panic!("{other:?}"),
    }
    assert_eq!(announced(&mut monitor), [Some(id)]);

    ip(&format!("link set dev {} xdp off", net.near));
    assert_eq!(port.program_status().unwrap(), ProgramStatus::Gone);
    assert_eq!(announced(&mut monitor), [None]);
    drop(second);

    ip(&format!("link del {}", net.near));
    assert_eq!(port.program_status().unwrap(), ProgramStatus::InterfaceGone);
}

#[test]
fn a_prepared_program_goes_with_its_owner() {
    let Some(net) = Net::new() else { return };
    let mut prepared = Prepared::open(&small(&net)).unwrap();
    assert_eq!(prepared.program_status().unwrap(), ProgramStatus::InPlace);
    let sockets = prepared.take_sockets();
    let mut port = Port::open_from(&small(&net), Source::Sockets(sockets)).unwrap();
    assert_eq!(port.program_status().unwrap(), ProgramStatus::InPlace);
    drop(prepared);
    assert_eq!(port.program_status().unwrap(), ProgramStatus::Gone);
}

#[test]
fn a_prepared_program_stays_with_what_its_owner_becomes() {
    let Some(net) = Net::new() else { return };
    let mut child = child::start("become-another", &net.near);
    assert_eq!(child::line(&mut child), "prepared");
    let comm = format!("/proc/{}/comm", child.id());
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string(&comm).unwrap() != "sleep\n" && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(net.interface().xdp_program().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while net.interface().xdp_program().is_some() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(net.interface().xdp_program(), None);
}

#[test]
fn an_interface_that_goes_while_it_is_opened_is_named() {
    let Some(net) = Net::new() else { return };
    // Opening waits for a queue that is busy; meanwhile the interface goes.
    let busy = Port::open_from(&small(&net), Source::Sockets(vec![socket()])).unwrap();
    let config = small(&net);
    let opener = std::thread::spawn(move || Port::open(&config).unwrap_err().to_string());
    while net.interface().xdp_program().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    ip(&format!("link del {}", net.near));
    let text = opener.join().unwrap();
    let start = format!("the network interface {} went away while", net.near);
    assert!(text.starts_with(&start), "{text}");
    drop(busy);
}
