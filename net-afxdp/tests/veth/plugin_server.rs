//! A server of our own that speaks the protocol of the Kubernetes device plugin, or does not.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread::JoinHandle,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

/// What the server does when it has read a request.
pub(crate) enum Reply {
    Text(&'static str),
    /// Text and file descriptors.
    With(&'static str, Vec<OwnedFd>),
    /// Text and a file descriptor, when this has been done a few times.
    After(Box<dyn Fn() + Send>, &'static str, OwnedFd),
    /// Two messages.
    Both(&'static str, &'static str),
    Close,
    /// Nothing, until the client goes.
    Hang,
}

/// Listens, serves one connection, and returns the requests that it got.
pub(crate) struct Server {
    pub(crate) path: PathBuf,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(replies: Vec<Reply>) -> Self {
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
            let client = rustix::io::retry_on_intr(|| {
                rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)
            });
            let Ok(client) = client else {
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

    pub(crate) fn requests(mut self) -> Vec<String> {
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
            Reply::After(interrupt, text, descriptor) => {
                for _ in 0..10 {
                    std::thread::sleep(Duration::from_millis(20));
                    interrupt();
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
    // With a time limit on it, the kernel does not go on by itself after a signal, nor when the machine was
    // stopped for a moment.
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            client,
            &mut [IoSliceMut::new(&mut text)],
            &mut RecvAncillaryBuffer::new(&mut space),
            RecvFlags::empty(),
        )
    });
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
