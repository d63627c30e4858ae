//! The AF_XDP sockets that are bound to an interface (sock_diag(7); linux/xdp_diag.h).
//!
//! A kernel has it with CONFIG_XDP_SOCKETS_DIAG only, which is often a module.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;

/// `XDP_SHOW_INFO`: interface, queue and user.
const SHOW_INFO: u32 = 1;

/// `XDP_DIAG_INFO`, `XDP_DIAG_UID`.
const INFO: u16 = 1;
const UID: u16 = 2;

/// Bytes of `struct xdp_diag_msg`.
const MESSAGE: usize = 16;

/// Bytes of a netlink message's header.
const HEADER: usize = 16;

/// Room for the messages of one read, in bytes.
const SPACE: usize = 32 * 1024;

/// An AF_XDP socket that is bound to a queue of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundSocket {
    /// The queue.
    pub queue: u32,
    /// The user that owns it.
    pub user: Option<u32>,
}

/// The sockets that are bound to the interface of that index, in the calling thread's network
/// namespace.
///
/// # Errors
/// The system's: `ENOENT` when the kernel does not tell.
pub(crate) fn bound(ifindex: u32) -> io::Result<Vec<BoundSocket>> {
    let mut kernel = Socket::new(NETLINK_SOCK_DIAG)?;
    kernel.bind_auto()?;
    kernel.connect(&SocketAddr::new(0, 0))?;
    kernel.send(&question(), 0)?;
    let mut sockets = Vec::new();
    let mut answer = Vec::with_capacity(SPACE);
    loop {
        answer.clear();
        match kernel.recv(&mut answer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if read(&answer, ifindex, &mut sockets)? {
            sockets.sort_unstable_by_key(|socket: &BoundSocket| socket.queue);
            return Ok(sockets);
        }
    }
}

/// Asks for all AF_XDP sockets (`struct xdp_diag_req`).
fn question() -> Vec<u8> {
    let family = u8::try_from(libc::AF_XDP).unwrap_or_default();
    let mut body = vec![family, 0, 0, 0];
    for number in [0, SHOW_INFO, u32::MAX, u32::MAX] {
        body.extend(number.to_ne_bytes());
    }
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence number and port: any.
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// Reads the messages of one datagram; whether that was the end.
fn read(mut bytes: &[u8], ifindex: u32, sockets: &mut Vec<BoundSocket>) -> io::Result<bool> {
    while let Ok(buffer) = NetlinkBuffer::new_checked(&bytes) {
        let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX);
        let payload = bytes.get(HEADER..length).unwrap_or_default();
        match i32::from(buffer.message_type()) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = payload
                    .first_chunk()
                    .map_or(0, |it| i32::from_ne_bytes(*it));
                return Err(io::Error::from_raw_os_error(code.saturating_abs()));
            }
            _ => sockets.extend(socket(payload, ifindex)),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if bytes.is_empty() {
        return Ok(false);
    }
    // Nothing may follow it, so better not wait.
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel's answer about AF_XDP sockets is cut short",
    ))
}

/// One socket, if it is bound to that interface.
fn socket(payload: &[u8], ifindex: u32) -> Option<BoundSocket> {
    let mut queue = None;
    let mut user = None;
    for attribute in NlasIterator::new(payload.get(MESSAGE..)?) {
        let attribute = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
            // ifindex, queue_id
            INFO if number(value) == Some(ifindex) => queue = number(value.get(4..)?),
            UID => user = number(value),
            _ => {}
        }
    }
    queue.map(|queue| BoundSocket { queue, user })
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn body(ifindex: u32, queue: u32, user: u32) -> Vec<u8> {
        let mut body = vec![0; MESSAGE];
        body.extend([12, 0, 1, 0]);
        body.extend(ifindex.to_ne_bytes());
        body.extend(queue.to_ne_bytes());
        body.extend([8, 0, 2, 0]);
        body.extend(user.to_ne_bytes());
        body
    }

    #[test]
    fn sockets_of_other_interfaces_are_passed_over() {
        let mut stream = message(BY_FAMILY, &body(7, 1, 1000));
        stream.extend(message(BY_FAMILY, &body(8, 0, 0)));
        stream.extend(message(BY_FAMILY, &body(0, 0, 0)));
        let mut sockets = Vec::new();
        assert!(!read(&stream, 7, &mut sockets).unwrap());
        stream.extend(message(3, &[0; 4]));
        sockets.clear();
        assert!(read(&stream, 7, &mut sockets).unwrap());
        let user = Some(1000);
        assert_eq!(sockets, [BoundSocket { queue: 1, user }]);
    }

    #[test]
    fn an_error_is_an_error_and_what_is_cut_short_nothing() {
        let error = message(2, &(-libc::ENOENT).to_ne_bytes());
        let mut sockets = Vec::new();
        let error = read(&error, 7, &mut sockets).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        let whole = body(7, 1, 1000);
        for length in 0..whole.len() - 8 {
            let cut = message(BY_FAMILY, &whole[..length]);
            assert!(!read(&cut, 7, &mut sockets).unwrap());
            assert!(sockets.is_empty(), "{length}: {sockets:?}");
        }
        let whole = message(BY_FAMILY, &whole);
        for length in 1..whole.len() {
            assert!(read(&whole[..length], 7, &mut sockets).is_err(), "{length}");
        }
    }

    #[test]
    fn the_kernel_answers() {
        match bound(u32::MAX) {
            Ok(sockets) => assert!(sockets.is_empty()),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}"),
        }
    }
}
