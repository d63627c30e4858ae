//! The socket of the Kubernetes device plugin: a server of our own that speaks its protocol, or
//! does not.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use libbpf_rs::XdpFlags;
use net_afxdp::{Port, PortConfig, Source};

use crate::{
    foreign::{Foreign, carry_traffic, socket},
    net::{Interruptible, Net, ip},
    plugin_server::{Reply, Server},
    traffic::config,
};

fn small(net: &Net) -> PortConfig {
    PortConfig {
        frames: 64,
        ..config(&net.near)
    }
}

fn source(server: &Server) -> Source {
    Source::Plugin(server.path.clone())
}

fn refusal(net: &Net, replies: Vec<Reply>) -> String {
    let server = Server::start(replies);
    let error = Port::open_from(&small(net), source(&server)).unwrap_err();
    let text = error.to_string();
    let start = format!("{}: the device plugin at ", net.near);
    assert!(text.starts_with(&start), "{text}");
    server.requests();
    assert_eq!(net.interface().xdp_program(), None);
    text
}

fn hello() -> Reply {
    Reply::Text("/host_ok")
}

/// The plugin knows no alternative names.
#[test]
fn the_plugin_is_asked_by_the_interface_s_name_proper() {
    let Some(net) = Net::new() else { return };
    let other = "an-alternative-name-of-more-than-15-bytes";
    ip(&format!(
        "link property add dev {} altname {other}",
        net.near
    ));
    let server = Server::start(vec![hello(), Reply::Text("/fd_nak")]);
    let config = PortConfig {
        ifname: other.to_owned(),
        ..small(&net)
    };
    assert!(Port::open_from(&config, source(&server)).is_err());
    let request = format!("/xsk_map_fd,{}", net.near);
    assert!(server.requests().contains(&request));
}

#[test]
fn the_plugins_map_gets_the_sockets() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let foreign = Foreign::attach(net.interface().index(), 2, XdpFlags::DRV_MODE);
    let server = Server::start(vec![
        hello(),
        Reply::With("/fd_ack", vec![foreign.map_fd()]),
        Reply::Text("/fin_ack"),
    ]);
    let config = PortConfig {
        queues: 2,
        ..small(&net)
    };
    let mut port = Port::open_from(&config, source(&server)).unwrap();
    carry_traffic(&net, &mut port.take_queues());
    let pod = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let expected = [
        format!("/connect,{pod}"),
        format!("/xsk_map_fd,{}", net.near),
        "/fin".to_owned(),
    ];
    assert_eq!(server.requests(), expected);
}

#[test]
fn a_plugin_that_does_not_say_goodbye_does_no_harm() {
    let Some(net) = Net::new() else { return };
    let foreign = Foreign::attach(net.interface().index(), 1, XdpFlags::DRV_MODE);
    let server = Server::start(vec![
        hello(),
        Reply::With("/fd_ack", vec![foreign.map_fd()]),
        Reply::Close,
    ]);
    let mut port = Port::open_from(&small(&net), source(&server)).unwrap();
    carry_traffic(&net, &mut port.take_queues());
}

#[test]
fn signals_do_not_disturb() {
    let Some(net) = Net::new() else { return };
    let foreign = Foreign::attach(net.interface().index(), 1, XdpFlags::DRV_MODE);
    let this = Interruptible::this_thread();
    let server = Server::start(vec![
        hello(),
        Reply::After(
            Box::new(move || this.interrupt()),
            "/fd_ack",
            foreign.map_fd(),
        ),
        Reply::Text("/fin_ack"),
    ]);
    let mut port = Port::open_from(&small(&net), source(&server)).unwrap();
    carry_traffic(&net, &mut port.take_queues());
}

#[test]
fn a_plugin_that_is_not_there() {
    let Some(net) = Net::new() else { return };
    for path in ["/rw-not-there.sock", "/dev/null"] {
        let source = Source::Plugin(path.into());
        let text = Port::open_from(&small(&net), source)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains(&format!(
                "the device plugin at {path}: cannot connect to it"
            )),
            "{text}"
        );
    }
}

#[test]
fn a_plugin_that_refuses() {
    let Some(net) = Net::new() else { return };
    let text = refusal(&net, vec![Reply::Text("/host_nak")]);
    assert!(text.contains("it refused the pod"), "{text}");
    let text = refusal(&net, vec![Reply::Both("/error", "/host_nak")]);
    assert!(
        text.contains("it refused the pod") && text.contains("(/error)"),
        "{text}"
    );
    let text = refusal(&net, vec![hello(), Reply::Text("/fd_nak"), Reply::Close]);
    let device = format!("it has no device {:?} for this pod (/fd_nak)", net.near);
    assert!(text.contains(&device), "{text}");
}

#[test]
fn a_plugin_that_closes() {
    let Some(net) = Net::new() else { return };
    let text = refusal(&net, vec![Reply::Close]);
    assert!(
        text.contains("closed the connection instead of an answer to \"/connect,"),
        "{text}"
    );
    let text = refusal(&net, vec![hello(), Reply::Close]);
    assert!(
        text.contains("closed the connection instead of an answer to \"/xsk_map_fd,"),
        "{text}"
    );
}

#[test]
fn a_plugin_that_hangs() {
    let Some(net) = Net::new() else { return };
    let start = Instant::now();
    let text = refusal(&net, vec![hello(), Reply::Hang]);
    assert!(start.elapsed() >= Duration::from_secs(9), "{text}");
    assert!(
        text.contains("no answer to \"/xsk_map_fd,") && text.contains("within 10 s"),
        "{text}"
    );
}

#[test]
fn a_plugin_that_lies() {
    let Some(net) = Net::new() else { return };
    let nonsense = "an answer that is longer than any of the protocol: it has more than 64 bytes";
    for (replies, part) in [
        (
            vec![Reply::Text("HTTP/1.1 200 OK")],
            "\"HTTP/1.1 200 OK\" to \"/connect,",
        ),
        (vec![Reply::Text(nonsense)], "it has more"),
        (vec![hello(), hello()], "\"/host_ok\" to \"/xsk_map_fd,"),
        (
            vec![Reply::With("/host_ok", vec![socket()])],
            "sent 1 file descriptors along with \"/host_ok\", where there must be 0",
        ),
        (
            vec![hello(), Reply::Text("/fd_ack"), Reply::Close],
            "sent 0 file descriptors along with \"/fd_ack\", where there must be 1",
        ),
        (
            vec![
                hello(),
                Reply::With("/fd_ack", vec![socket(), socket()]),
                Reply::Close,
            ],
            "sent 2 file descriptors along with \"/fd_ack\", where there must be 1",
        ),
    ] {
        let text = refusal(&net, replies);
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_plugin_whose_descriptor_is_no_map_of_sockets() {
    let Some(net) = Net::new() else { return };
    let other = crate::foreign::other_map();
    let other = other.as_fd().try_clone_to_owned().unwrap();
    for (descriptor, part) in [
        (socket(), "is not a BPF map"),
        (other, "does not hold AF_XDP sockets"),
    ] {
        let server = Server::start(vec![
            hello(),
            Reply::With("/fd_ack", vec![descriptor]),
            Reply::Text("/fin_ack"),
        ]);
        let error = Port::open_from(&small(&net), source(&server)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn descriptors_of_a_plugin_that_lies_are_closed() {
    let Some(net) = Net::new() else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    let five: Vec<OwnedFd> = (0..5)
        .map(|_| OwnedFd::from(writer.try_clone().unwrap()))
        .collect();
    drop(writer);
    let text = refusal(
        &net,
        vec![hello(), Reply::With("/fd_ack", five), Reply::Close],
    );
    assert!(text.contains("file descriptors along"), "{text}");
    assert_all_closed(&reader);
}

#[test]
fn descriptors_that_come_with_the_goodbye_are_closed_while_the_port_is_open() {
    let Some(net) = Net::new() else { return };
    let foreign = Foreign::attach(net.interface().index(), 1, XdpFlags::DRV_MODE);
    let (reader, writer) = std::io::pipe().unwrap();
    let server = Server::start(vec![
        hello(),
        Reply::With("/fd_ack", vec![foreign.map_fd()]),
        Reply::With("/fin_ack", vec![writer.into()]),
    ]);
    let port = Port::open_from(&small(&net), source(&server)).unwrap();
    server.requests();
    assert_all_closed(&reader);
    drop(port);
}

/// A pipe is at its end when nobody has the other side any more.
fn assert_all_closed(reader: &std::io::PipeReader) {
    let mut fds = [rustix::event::PollFd::new(
        reader,
        rustix::event::PollFlags::IN,
    )];
    let pause = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(rustix::event::poll(&mut fds, Some(&pause)).unwrap(), 1);
    assert!(fds[0].revents().contains(rustix::event::PollFlags::HUP));
}
