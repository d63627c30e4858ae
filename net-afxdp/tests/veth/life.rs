//! What comes and goes: programs, processes, links, interfaces.

use std::{
    os::fd::AsRawFd,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use net_afxdp::{Interface, Port, PortConfig, Prepared};

use crate::{
    child,
    net::{Net, ip},
    packet::{PATIENCE, Packet, frame},
    traffic::{config, open, receive, send},
};

fn errno(result: std::io::Result<()>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Waits until the program is off.
fn program_is_gone(net: &Net) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if net.interface().xdp_program().is_none() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn the_program_goes_with_the_port_and_the_queue_lives_on() {
    let Some(net) = Net::new() else { return };
    let (port, mut queue) = open(&config(&net.near));
    assert!(net.interface().xdp_program().is_some());
    drop(port);
    assert_eq!(net.interface().xdp_program(), None);

    let far = Packet::open(&net.far);
    send(&mut queue, &frame(1, 64)).unwrap();
    queue.flush().unwrap();
    assert!(far.receive().as_deref() == Some(&frame(1, 64)));
    // Now for the kernel's own stack.
    let near = Packet::open(&net.near);
    far.send(&frame(2, 64)).unwrap();
    assert!(near.receive().as_deref() == Some(&frame(2, 64)));
    assert_eq!(queue.discard(), 0);
    assert!(queue.accounting().is_balanced());
}

/// How often the interface was asked to be promiscuous.
fn promiscuity(net: &Net) -> u32 {
    let output = Command::new("ip")
        .args(["-details", "link", "show", "dev", &net.near])
        .output()
        .expect("ip");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace();
    words.find(|&word| word == "promiscuity").expect("a count");
    words.next().unwrap().parse().unwrap()
}

/// Waits for it: a child of another test that was not executed yet may have a copy of ours.
fn is_promiscuous_no_more(net: &Net) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while promiscuity(net) != 0 {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

#[test]
fn the_interface_is_promiscuous_as_long_as_the_program_is_there() {
    let Some(net) = Net::new() else { return };
    assert_eq!(promiscuity(&net), 0);
    let (port, _queue) = open(&config(&net.near));
    assert_eq!(promiscuity(&net), 1);
    drop(port);
    assert!(is_promiscuous_no_more(&net));

    let prepared = Prepared::open(&config(&net.near)).unwrap();
    assert_eq!(promiscuity(&net), 1);
    drop(prepared);
    assert!(is_promiscuous_no_more(&net));
}

#[test]
fn children_inherit_the_program_but_no_packet_socket() {
    let Some(net) = Net::new() else { return };
    let mut prepared = Prepared::open(&config(&net.near)).unwrap();
    prepared.let_children_inherit().unwrap();
    prepared.let_children_keep_program().unwrap();
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let promiscuous = prepared.take_promiscuity().unwrap();
    assert!(!prepared.inherited().contains(&promiscuous.as_raw_fd()));
    let closed = rustix::io::FdFlags::CLOEXEC;
    assert_eq!(rustix::io::fcntl_getfd(&promiscuous).unwrap(), closed);
    for socket in prepared.take_sockets() {
        let family = rustix::net::sockopt::socket_domain(&socket).unwrap();
        assert_eq!(family, rustix::net::AddressFamily::XDP);
    }
    assert_eq!(promiscuity(&net), 1);
    // Neither the child nor what is left here keeps it so.
    drop(promiscuous);
    assert!(is_promiscuous_no_more(&net));
    drop(prepared);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Should it get into the wrong hands all the same.
#[test]
fn what_keeps_an_interface_promiscuous_receives_nothing() {
    let Some(net) = Net::new() else { return };
    let mut prepared = Prepared::open(&config(&net.near)).unwrap();
    let socket = prepared.take_promiscuity().unwrap();
    let spy = Packet::take_for_all(socket, &net.far);
    assert_eq!(errno(spy.detach_filter()), Some(libc::EPERM));
    let (near, far) = (Packet::open(&net.near), Packet::open(&net.far));
    for number in 0..10 {
        near.send(&frame(number, 64)).unwrap();
        assert!(far.receive().as_deref() == Some(&frame(number, 64)));
    }
    assert!(spy.try_receive().is_none());
}

#[test]
fn frames_of_a_queue_without_a_socket_go_to_the_kernel() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let (_port, mut queue) = open(&PortConfig {
        start_queue: 1,
        ..config(&net.near)
    });
    let kernel = Packet::open(&net.near);
    // veth hands a frame to the receive queue of the same number as the queue it was sent from.
    let mut far = Port::open(&PortConfig {
        queues: 2,
        ..config(&net.far)
    })
    .unwrap();
    for (number, mut from) in (0..2).zip(far.take_queues()) {
        assert_eq!(from.id(), number);
        send(&mut from, &frame(number, 64)).unwrap();
        from.flush().unwrap();
    }
    assert!(kernel.receive().as_deref() == Some(&frame(0, 64)));
    assert!(receive(&mut queue, 1) == [frame(1, 64)]);
    assert_eq!(queue.discard(), 0);
    assert!(kernel.try_receive().is_none());
}

#[test]
fn the_program_and_the_queue_are_gone_after_sigkill() {
    let Some(net) = Net::new() else { return };
    let mut child = child::start("hold", &net.near);
    assert_eq!(child::line(&mut child), "open in native mode");
    assert!(net.interface().xdp_program().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(program_is_gone(&net));
    drop(open(&config(&net.near)));
}

#[test]
fn the_program_and_the_queue_are_gone_after_an_exit_without_destructors() {
    let Some(net) = Net::new() else { return };
    let mut child = child::start("exit", &net.near);
    assert_eq!(child::line(&mut child), "open in native mode");
    child.wait().unwrap();
    assert!(program_is_gone(&net));
    drop(open(&config(&net.near)));
}

#[test]
fn an_interface_that_is_down_is_opened_and_works_when_it_is_up() {
    let Some(net) = Net::new() else { return };
    ip(&format!("link set dev {} down", net.near));
    let (port, mut queue) = open(&config(&net.near));
    assert!(!port.interface().admin_up());
    send(&mut queue, &frame(1, 64)).unwrap();
    assert_eq!(queue.unsent(), 0);
    assert_eq!(errno(queue.flush()), Some(libc::ENETDOWN));
    assert_eq!((queue.unsent(), queue.accounting().tx), (1, 1));

    ip(&format!("link set dev {} up", net.near));
    let far = Packet::open(&net.far);
    queue.flush().unwrap();
    assert!(
        far.receive().as_deref() == Some(&frame(1, 64)),
        "what was queued is sent"
    );
    far.send(&frame(2, 64)).unwrap();
    assert!(receive(&mut queue, 1) == [frame(2, 64)]);
}

#[test]
fn a_link_that_goes_down_and_up_again_loses_no_frame_memory() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&PortConfig {
        frames: 64,
        ..config(&net.near)
    });
    for round in 0..5 {
        ip(&format!("link set dev {} down", net.near));
        while send(&mut queue, &frame(round, 64)).is_ok() {}
        assert_eq!(errno(queue.flush()), Some(libc::ENETDOWN));
        assert!(queue.accounting().is_balanced());
        ip(&format!("link set dev {} up", net.near));
        let far = Packet::open(&net.far);
        queue.flush().unwrap();
        assert!(far.receive().is_some());
        far.send(&frame(2, 64)).unwrap();
        assert!(receive(&mut queue, 1) == [frame(2, 64)]);
        assert_eq!(queue.room(), 32);
    }
}

#[test]
fn a_deleted_interface_is_an_error_and_frames_add_up() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&config(&net.near));
    let far = Packet::open(&net.far);
    for number in 0..50 {
        far.send(&frame(number, 64)).unwrap();
        send(&mut queue, &frame(number, 64)).unwrap();
    }
    ip(&format!("link del {}", net.near));
    assert_eq!(errno(queue.flush()), Some(libc::ENXIO));
    assert_eq!(errno(queue.flush()), Some(libc::ENXIO));
    queue.discard();
    assert!(queue.statistics().is_ok());
    let accounting = queue.accounting();
    assert!(accounting.is_balanced(), "{accounting:?}");
    assert_eq!(accounting.tx, 50);
}

#[test]
fn an_interface_moved_to_another_namespace_is_an_error() {
    let Some(net) = Net::new() else { return };
    let (_port, mut queue) = open(&config(&net.near));
    let mut other = Command::new("unshare")
        .args(["-n", "sleep", "600"])
        .spawn()
        .unwrap();
    // It has its namespace when it has become `sleep`.
    let comm = format!("/proc/{}/comm", other.id());
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string(&comm).unwrap() != "sleep\n" && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    ip(&format!("link set dev {} netns {}", net.near, other.id()));
    send(&mut queue, &frame(1, 64)).unwrap();
    let error = errno(queue.flush());
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(
        matches!(error, Some(libc::ENXIO | libc::ENETDOWN)),
        "{error:?}"
    );
    assert!(queue.accounting().is_balanced());
}

#[test]
fn a_new_name_changes_nothing() {
    let Some(net) = Net::new() else { return };
    let (port, mut queue) = open(&config(&net.near));
    ip(&format!("link set dev {} down", net.near));
    ip(&format!("link set dev {} name rwrenamed", net.near));
    ip("link set dev rwrenamed up");
    let far = Packet::open(&net.far);
    far.send(&frame(1, 64)).unwrap();
    assert!(receive(&mut queue, 1) == [frame(1, 64)]);
    send(&mut queue, &frame(2, 64)).unwrap();
    queue.flush().unwrap();
    assert!(far.receive().as_deref() == Some(&frame(2, 64)));
    assert_eq!(
        Interface::by_index(port.interface().index())
            .unwrap()
            .name(),
        "rwrenamed"
    );
}

#[test]
fn opening_and_closing_leaks_no_descriptor_and_no_memory() {
    let Some(net) = Net::new() else { return };
    let locked = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status
            .lines()
            .find(|line| line.starts_with("VmPin"))
            .map(str::to_owned)
    };
    drop(open(&config(&net.near)));
    let sockets = || {
        let sockets = std::fs::read_to_string("/proc/thread-self/net/protocols").unwrap();
        let xdp = sockets
            .lines()
            .find(|line| line.starts_with("XDP"))
            .unwrap()
            .to_owned();
        xdp.split_whitespace()
            .nth(2)
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    for _ in 0..10 {
        drop(open(&PortConfig {
            frames: 64,
            ..config(&net.near)
        }));
    }
    let deadline = Instant::now() + PATIENCE;
    while sockets() != 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(
        sockets(),
        0,
        "AF_XDP sockets of this namespace; {:?}",
        locked()
    );
}
