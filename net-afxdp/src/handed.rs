//! AF_XDP sockets that somebody else created: what they must be like.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{io::Errno, net::AddressFamily};

use crate::{interface::Interface, sys};

/// Why sockets that were handed over can't be used. They are numbered from 1, in the order given.
#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    /// Their number is wrong.
    #[error(
        "{given} socket{} handed over for {queues} queue{}: give one for each queue, the first \
         queue's first",
        if *given == 1 { " was" } else { "s were" }, if *queues == 1 { "" } else { "s" }
    )]
    Count {
        /// How many there are.
        given: usize,
        /// How many are needed.
        queues: u32,
    },
    /// It is no socket.
    #[error("number {number} of the sockets handed over can't be used as one: {source}")]
    NotASocket {
        /// Which.
        number: usize,
        /// What the system said.
        source: io::Error,
    },
    /// It is a socket of another kind.
    #[error(
        "number {number} of the sockets handed over is not an AF_XDP socket, but of address family \
         {family}"
    )]
    NotXdp {
        /// Which.
        number: usize,
        /// Its address family (`AF_*`).
        family: u16,
    },
    /// It is there twice.
    #[error(
        "numbers {first} and {second} of the sockets handed over are the same socket; each queue \
         needs one of its own"
    )]
    Twice {
        /// Which.
        first: usize,
        /// And which.
        second: usize,
    },
    /// It may be bound to another interface only.
    #[error(
        "number {number} of the sockets handed over is for another interface (SO_BINDTODEVICE): \
         {device}"
    )]
    OtherDevice {
        /// Which.
        number: usize,
        /// Name of that interface, or its index if it has none here.
        device: String,
    },
}

/// Checks all that can be told before a socket is set up. Whether somebody else has set it up, the
/// kernel tells then.
///
/// # Errors
/// [`HandedError`].
pub(crate) fn check(
    sockets: &[OwnedFd],
    queues: u32,
    interface: &Interface,
) -> Result<(), HandedError> {
    if u32::try_from(sockets.len()).ok() != Some(queues) {
        let given = sockets.len();
        return Err(HandedError::Count { given, queues });
    }
    let mut seen = Vec::with_capacity(sockets.len());
    for (number, socket) in (1..).zip(sockets) {
        check_kind(number, socket.as_fd())?;
        check_device(number, socket.as_fd(), interface)?;
        // Duplicates of a file descriptor are the same socket, and sockets have numbers of their own.
        let inode = rustix::fs::fstat(socket)
            .map_err(|error| not_a_socket(number, error))?
            .st_ino;
        if let Some(first) = seen.iter().position(|other| *other == inode) {
            return Err(HandedError::Twice {
                first: first + 1,
                second: number,
            });
        }
        seen.push(inode);
    }
    Ok(())
}

fn check_kind(number: usize, socket: BorrowedFd<'_>) -> Result<(), HandedError> {
    let family =
        rustix::net::sockopt::socket_domain(socket).map_err(|error| not_a_socket(number, error))?;
    if family == AddressFamily::XDP {
        return Ok(());
    }
    let family = family.as_raw();
    Err(HandedError::NotXdp { number, family })
}

fn check_device(
    number: usize,
    socket: BorrowedFd<'_>,
    interface: &Interface,
) -> Result<(), HandedError> {
    let index =
        sys::bound_device(socket).map_err(|source| HandedError::NotASocket { number, source })?;
    if index == 0 || index == interface.index() {
        return Ok(());
    }
    let device = Interface::by_index(index).map_or_else(
        |_| format!("the one of index {index}"),
        |other| other.name().to_owned(),
    );
    Err(HandedError::OtherDevice { number, device })
}

fn not_a_socket(number: usize, error: Errno) -> HandedError {
    HandedError::NotASocket {
        number,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sockets: &[OwnedFd], queues: u32) -> String {
        let lo = Interface::by_name("lo").unwrap();
        check(sockets, queues, &lo).unwrap_err().to_string()
    }

    #[test]
    fn the_number_must_be_right() {
        let text = text(&[], 2);
        assert_eq!(
            text,
            "0 sockets were handed over for 2 queues: give one for each queue, the first queue's \
             first"
        );
        let (reader, _) = io::pipe().unwrap();
        let text = self::text(&[reader.into()], 2);
        assert!(text.starts_with("1 socket was handed over for 2"), "{text}");
    }

    #[test]
    fn what_is_no_socket_or_of_another_family_is_named() {
        let (reader, _) = io::pipe().unwrap();
        let text = text(&[reader.into()], 1);
        assert!(
            text.starts_with("number 1 of the sockets") && text.contains("Socket operation on"),
            "{text}"
        );
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let text = self::text(&[udp.into()], 1);
        assert!(
            text.contains("not an AF_XDP socket, but of address family 2"),
            "{text}"
        );
    }
}
