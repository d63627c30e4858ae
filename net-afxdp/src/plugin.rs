//! The socket of the AF_XDP device plugin for Kubernetes, which hands out the map of its program.
//!
//! The protocol is that of the plugin's `internal/udsserver` and `constants` (version 0.1): a
//! SOCK_SEQPACKET connection, one request and one answer a message, of up to 64 bytes, fields
//! separated by commas. The plugin serves one connection in the life of its socket.
//!
//! | request | answers |
//! |---|---|
//! | `/connect,POD` | `/host_ok`, `/host_nak`; `/error` and then `/host_nak` |
//! | `/xsk_map_fd,DEVICE` | `/fd_ack` with the map (SCM_RIGHTS), `/fd_nak` |
//! | `/fin` | `/fin_ack` |
//!
//! Two requests are not made. `/version`: 0.1 is the only one there has been. `/config_busy_poll,TIMEOUT,BUDGET`
//! with a socket: the plugin then sets SO_PREFER_BUSY_POLL, SO_BUSY_POLL and SO_BUSY_POLL_BUDGET on it, as a pod
//! without CAP_NET_ADMIN may not. It would have to be asked before the map is used and the connection ends, when
//! nobody knows whether the queue becomes a zero-copy one, which alone gains by it
//! ([`Queue::set_busy_poll`](crate::Queue::set_busy_poll) is for that, with the capability).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendFlags, SocketAddrUnix, SocketFlags, SocketType,
        sockopt::{self, Timeout},
    },
};

/// How long all of it may take. The plugin asks its kubelet about the pod meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for the answer to the goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Longest message of the protocol, in bytes.
const MESSAGE: usize = 64;

/// Why the device plugin did not hand out the map.
#[derive(Debug, thiserror::Error)]
#[error("the device plugin at {}: {source}", path.display())]
pub struct PluginError {
    path: PathBuf,
    source: PluginFault,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
enum PluginFault {
    #[error(
        "cannot connect to it: {0}. It serves each socket once, and for a limited time (its option \
         udsTimeout); its directory must be mounted into the pod"
    )]
    Connect(#[source] io::Error),
    #[error("the request {request:?} failed: {source}")]
    Transfer { request: String, source: io::Error },
    #[error("no answer to {request:?} came within {} s", PATIENCE.as_secs())]
    Silent { request: String },
    #[error("it closed the connection instead of an answer to {request:?}")]
    Closed { request: String },
    #[error(
        "it refused the pod {pod:?} ({answer}): the host name must be the pod's name, and this \
         socket that of the device that was allocated to the pod"
    )]
    Pod { pod: String, answer: String },
    #[error(
        "it has no device {device:?} for this pod ({answer}): name one of those that were allocated \
         to it"
    )]
    Device { device: String, answer: String },
    #[error("it gave the answer {answer:?} to {request:?}, which is not one of the protocol")]
    Nonsense { request: String, answer: String },
    #[error(
        "it sent {found} file descriptors along with {answer:?}, where there must be {expected}"
    )]
    Descriptors {
        answer: String,
        found: usize,
        expected: usize,
    },
}

/// Asks the device plugin that listens at `path` for the map of `device`, in the name of this host.
///
/// Takes 10 seconds at most. What it sends is checked for its form only: whether the file descriptor
/// is a map is up to the caller.
///
/// # Errors
/// [`PluginError`].
pub(crate) fn ask_for_map(path: &Path, device: &str) -> Result<OwnedFd, PluginError> {
    let pod = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let deadline = Instant::now() + PATIENCE;
    try_ask(path, device, pod, deadline).map_err(|source| PluginError {
        path: path.to_owned(),
        source,
    })
}

fn try_ask(
    path: &Path,
    device: &str,
    pod: String,
    deadline: Instant,
) -> Result<OwnedFd, PluginFault> {
    let mut plugin = Connection::open(path, deadline).map_err(PluginFault::Connect)?;

    let request = format!("/connect,{pod}");
    let answer = plugin.ask(&request)?.without_map()?;
    match answer.as_str() {
        "/host_ok" => {}
        "/host_nak" | "/error" => return Err(PluginFault::Pod { pod, answer }),
        _ => return Err(PluginFault::Nonsense { request, answer }),
    }

    let request = format!("/xsk_map_fd,{device}");
    let answer = plugin.ask(&request)?;
    let map = match answer.text.as_str() {
        "/fd_ack" => answer.map()?,
        "/fd_nak" | "/nak" => {
            let device = device.to_owned();
            let answer = answer.text;
            return Err(PluginFault::Device { device, answer });
        }
        _ => {
            let answer = answer.text;
            return Err(PluginFault::Nonsense { request, answer });
        }
    };
    // Polite: what matters is here already.
    plugin.deadline = deadline.min(Instant::now() + GOODBYE);
    if let Err(error) = plugin.ask("/fin") {
        tracing::debug!(%error, "the device plugin did not answer to the goodbye");
    }
    Ok(map)
}

/// An answer, with the file descriptors that came along.
struct Answer {
    text: String,
    descriptors: Vec<OwnedFd>,
}

impl Answer {
    fn without_map(self) -> Result<String, PluginFault> {
        self.expect(0).map(|answer| answer.text)
    }

    fn map(self) -> Result<OwnedFd, PluginFault> {
        let mut answer = self.expect(1)?;
        answer.descriptors.pop().ok_or(PluginFault::Descriptors {
            answer: answer.text,
            found: 0,
            expected: 1,
        })
    }

    fn expect(self, expected: usize) -> Result<Self, PluginFault> {
        let found = self.descriptors.len();
        if found == expected {
            return Ok(self);
        }
        Err(PluginFault::Descriptors {
            answer: self.text,
            found,
            expected,
        })
    }
}

struct Connection {
    socket: OwnedFd,
    deadline: Instant,
}

impl Connection {
    fn open(path: &Path, deadline: Instant) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        let connection = Self { socket, deadline };
        retry_on_intr(|| {
            // A listener whose queue is full lets one wait as long as one can send.
            connection.limit(Timeout::Send)?;
            rustix::net::connect(&connection.socket, &address)
        })?;
        Ok(connection)
    }

    /// Sends a request and waits for the answer.
    fn ask(&self, request: &str) -> Result<Answer, PluginFault> {
        // With a time limit, the kernel leaves it to the caller to go on after a signal.
        let result =
            retry_on_intr(|| self.send(request)).and_then(|()| retry_on_intr(|| self.receive()));
        let request = request.to_owned();
        match result {
            Ok(answer) if answer.text.is_empty() => Err(PluginFault::Closed { request }),
            Ok(answer) => Ok(answer),
            Err(Errno::AGAIN | Errno::TIMEDOUT) => Err(PluginFault::Silent { request }),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(PluginFault::Closed { request }),
            Err(error) => Err(PluginFault::Transfer {
                request,
                source: error.into(),
            }),
        }
    }

    fn send(&self, request: &str) -> rustix::io::Result<()> {
        self.limit(Timeout::Send)?;
        rustix::net::sendmsg(
            &self.socket,
            &[IoSlice::new(request.as_bytes())],
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        )
        .map(drop)
    }

    /// One message; empty when the connection was closed.
    fn receive(&self) -> rustix::io::Result<Answer> {
        self.limit(Timeout::Recv)?;
        let mut text = [0; MESSAGE];
        // The kernel closes file descriptors that there is no room for.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut descriptors = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                descriptors.extend(rights);
            }
        }
        let text = text.get(..message.bytes).unwrap_or_default();
        Ok(Answer {
            text: String::from_utf8_lossy(text).into_owned(),
            descriptors,
        })
    }

    /// Lets the next call take what is left of the time.
    fn limit(&self, direction: Timeout) -> rustix::io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // Zero would mean for ever.
        let left = left.max(Duration::from_millis(1));
        sockopt::set_socket_timeout(self.socket.as_fd(), direction, Some(left))
    }
}
