//! The socket of the Kubernetes device plugin: a server of our own that speaks its protocol, or
//! does not.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use libbpf_rs::XdpFlags;
use net_afxdp::{Port, PortConfig, Source};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use crate::{
    foreign::{Foreign, carry_traffic, socket},
    net::{Interruptible, Net},
    traffic::config,
};

/// What the server does when it has read a request.
enum Reply {
    Text(&'static str),
    /// Text and file descriptors.
    With(&'static str, Vec<OwnedFd>),
    /// Text and a file descriptor, when the thread has been interrupted a few times.
    Interrupting(Interruptible, &'static str, OwnedFd),
    /// Two messages.
    Both(&'static str, &'static str),
    Close,
    /// Nothing, until the client goes.
    Hang,
}

/// Listens, serves one connection, and returns the requests that it got.
struct Server {
    path: PathBuf,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Server {
    fn start(replies: Vec<Reply>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("net-afxdp-plugin-{}-{number}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        // In case that nobody comes, or goes.
        let patience = Some(Duration::from_secs(30));
        sockopt::set_socket_timeout(&listener, sockopt::Timeout::Recv, patience).unwrap();
        let thread = std::thread::spawn(move || {
            let Ok(client) = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC) else {
                return Vec::new();
            };
            sockopt::set_socket_timeout(&client, sockopt::Timeout::Recv, patience).unwrap();
            serve(client.as_fd(), replies)
        });
        Self {
            path,
            thread: Some(thread),
        }
    }

    fn source(&self) -> Source {
        Source::Plugin(self.path.clone())
    }

    fn requests(mut self) -> Vec<String> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(client: BorrowedFd<'_>, replies: Vec<Reply>) -> Vec<String> {
    let mut requests = Vec::new();
    for reply in replies {
        let Some(request) = read(client) else { break };
        requests.push(request);
        match reply {
            Reply::Text(text) => write(client, text, &[]),
            Reply::With(text, descriptors) => {
                let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                write(client, text, &descriptors);
            }
            Reply::Interrupting(thread, text, descriptor) => {
                for _ in 0..10 {
                    std::thread::sleep(Duration::from_millis(20));
                    thread.interrupt();
                }
                write(client, text, &[descriptor.as_fd()]);
            }
            Reply::Both(first, second) => {
                write(client, first, &[]);
                write(client, second, &[]);
            }
            Reply::Close => break,
            Reply::Hang => while read(client).is_some() {},
        }
    }
    requests
}

fn read(client: BorrowedFd<'_>) -> Option<String> {
    let mut text = [0; 64];
    let mut space = [MaybeUninit::uninit(); 64];
    let message = rustix::net::recvmsg(
        client,
        &mut [IoSliceMut::new(&mut text)],
        &mut RecvAncillaryBuffer::new(&mut space),
        RecvFlags::empty(),
    );
    let length = message.ok()?.bytes;
    (length > 0).then(|| String::from_utf8(text[..length].to_vec()).unwrap())
}

fn write(client: BorrowedFd<'_>, text: &str, descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    // The client may be gone.
    let _ = rustix::net::sendmsg(
        client,
        &[IoSlice::new(text.as_bytes())],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    );
}

fn small(net: &Net) -> PortConfig {
    PortConfig {
        frames: 64,
        ..config(&net.near)
    }
}

fn refusal(net: &Net, replies: Vec<Reply>) -> String {
    let server = Server::start(replies);
    let error = Port::open_from(&small(net), server.source()).unwrap_err();
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
    let mut port = Port::open_from(&config, server.source()).unwrap();
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
    let mut port = Port::open_from(&small(&net), server.source()).unwrap();
    carry_traffic(&net, &mut port.take_queues());
}

#[test]
fn signals_do_not_disturb() {
    let Some(net) = Net::new() else { return };
    let foreign = Foreign::attach(net.interface().index(), 1, XdpFlags::DRV_MODE);
    let this = Interruptible::this_thread();
    let server = Server::start(vec![
        hello(),
        Reply::Interrupting(this, "/fd_ack", foreign.map_fd()),
        Reply::Text("/fin_ack"),
    ]);
    let mut port = Port::open_from(&small(&net), server.source()).unwrap();
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
        let error = Port::open_from(&small(&net), server.source()).unwrap_err();
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
    // At its end when nobody has the other side any more.
    let mut fds = [rustix::event::PollFd::new(
        &reader,
        rustix::event::PollFlags::IN,
    )];
    let pause = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(rustix::event::poll(&mut fds, Some(&pause)).unwrap(), 1);
    assert!(fds[0].revents().contains(rustix::event::PollFlags::HUP));
}
