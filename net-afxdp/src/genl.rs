//! Generic netlink: one question to one family, with one attribute, and the attributes of the answer.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and `CTRL_ATTR_FAMILY_NAME` (linux/genetlink.h).
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Bytes of a netlink message's header, and of `struct genlmsghdr`.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// Room for an answer, in bytes: that about a family lists its commands.
const SPACE: usize = 32 * 1024;

/// What `family` answers to `command` with that attribute.
///
/// # Errors
/// The system's: `ENOENT` if the kernel has no such family.
pub(crate) fn ask(family: &str, command: u8, attribute: (u16, &[u8])) -> io::Result<Vec<u8>> {
    let mut kernel = Socket::new(NETLINK_GENERIC)?;
    kernel.bind_auto()?;
    kernel.connect(&SocketAddr::new(0, 0))?;
    let name = [family.as_bytes(), &[0]].concat();
    let family = exchange(&kernel, CONTROL, GET_FAMILY, (FAMILY_NAME, &name))?;
    let family = value(&family, FAMILY_ID).ok_or_else(no_answer)?;
    exchange(&kernel, u16::from_ne_bytes(family), command, attribute)
}

/// One question with one attribute; the attributes of the answer.
fn exchange(
    kernel: &Socket,
    family: u16,
    command: u8,
    attribute: (u16, &[u8]),
) -> io::Result<Vec<u8>> {
    kernel.send(&question(family, command, attribute), 0)?;
    let mut answer = Vec::with_capacity(SPACE);
    loop {
        answer.clear();
        match kernel.recv(&mut answer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        return attributes(&answer, family).map(<[u8]>::to_vec);
    }
}

fn question(family: u16, command: u8, (kind, value): (u16, &[u8])) -> Vec<u8> {
    // Version 1 of the family, and what is reserved.
    let mut body = vec![command, 1, 0, 0];
    body.extend(attribute(kind, value));
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port: any.
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// An attribute, padded.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes of the family's message in `answer`.
fn attributes(answer: &[u8], family: u16) -> io::Result<&[u8]> {
    let buffer = NetlinkBuffer::new_checked(&answer).map_err(|_| no_answer())?;
    let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX);
    let payload = answer.get(HEADER..length).unwrap_or_default();
    if i32::from(buffer.message_type()) == libc::NLMSG_ERROR {
        let code = payload
            .first_chunk()
            .map_or(0, |it| i32::from_ne_bytes(*it));
        return Err(io::Error::from_raw_os_error(code.saturating_abs()));
    }
    let attributes = payload.get(GENERIC_HEADER..);
    attributes
        .filter(|_| buffer.message_type() == family)
        .ok_or_else(no_answer)
}

/// The values of all attributes of that kind.
pub(crate) fn values(attributes: &[u8], kind: u16) -> Vec<Vec<u8>> {
    let all = NlasIterator::new(attributes).map_while(Result::ok);
    let some = all.filter(|it| it.kind() == kind);
    some.map(|it| it.value().to_vec()).collect()
}

/// The value of that attribute, if there is one of `N` bytes.
pub(crate) fn value<const N: usize>(attributes: &[u8], kind: u16) -> Option<[u8; N]> {
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    all.find(|it| it.kind() == kind)?.value().try_into().ok()
}

fn no_answer() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel's answer is not about a network device",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_answers_cut_short_are_errors() {
        let mut message = question(33, 1, (1, &[7, 0, 0, 0]));
        message.extend([12, 0, 6, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        let all = attributes(&message, 33).unwrap();
        assert_eq!(value(all, 1), Some([7, 0, 0, 0]));
        assert_eq!(value(all, 6), Some([2, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(values(all, 6), [[2, 0, 0, 0, 0, 0, 0, 0]]);
        assert_eq!(value::<4>(all, 6), None, "another length");
        assert_eq!(value::<4>(all, 5), None);
        assert!(attributes(&message, 34).is_err(), "of another family");
        for length in 0..message.len() {
            assert!(attributes(&message[..length], 33).is_err(), "{length}");
        }
    }

    #[test]
    fn a_family_that_the_kernel_does_not_have_is_an_error() {
        let error = ask("rw-not-there", 1, (1, &[])).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
