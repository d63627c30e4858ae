//! What the kernel's netdev family says about an interface (generic netlink;
//! Documentation/netlink/specs/netdev.yaml).

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and `CTRL_ATTR_FAMILY_NAME` (linux/genetlink.h).
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX` and `NETDEV_A_DEV_XSK_FEATURES` (linux/netdev.h).
const DEV_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XSK_FEATURES: u16 = 6;

/// `NETDEV_XSK_FLAGS_TX_CHECKSUM`.
const TX_CHECKSUM: u64 = 1 << 1;

/// Bytes of a netlink message's header, and of `struct genlmsghdr`.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// Room for an answer, in bytes: that about a family lists its commands.
const SPACE: usize = 16 * 1024;

/// Whether the driver completes checksums that TX metadata asks for. False also if the kernel does not say,
/// before 6.8.
///
/// # Errors
/// The system's: `ENOENT` if the kernel has no such family (before 6.3), `ENODEV` if there is no such interface.
pub(crate) fn completes_checksums(ifindex: u32) -> io::Result<bool> {
    let mut kernel = Socket::new(NETLINK_GENERIC)?;
    kernel.bind_auto()?;
    kernel.connect(&SocketAddr::new(0, 0))?;
    let family = ask(&kernel, CONTROL, GET_FAMILY, (FAMILY_NAME, b"netdev\0"))?;
    let family = u16::from_ne_bytes(attribute(&family, FAMILY_ID).ok_or_else(no_answer)?);
    let device = ask(&kernel, family, DEV_GET, (IFINDEX, &ifindex.to_ne_bytes()))?;
    let features = attribute(&device, XSK_FEATURES).map(u64::from_ne_bytes);
    Ok(features.unwrap_or(0) & TX_CHECKSUM != 0)
}

/// One question with one attribute; the attributes of the answer.
fn ask(kernel: &Socket, family: u16, command: u8, attribute: (u16, &[u8])) -> io::Result<Vec<u8>> {
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
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port: any.
    message.extend([0; 8]);
    message.extend(body);
    message
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

/// The value of that attribute, if there is one of `N` bytes.
fn attribute<const N: usize>(attributes: &[u8], kind: u16) -> Option<[u8; N]> {
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
    use crate::multi_buffer;

    #[test]
    fn loopback_completes_nothing_and_what_is_not_there_is_an_error() {
        let lo = crate::Interface::by_name("lo").unwrap();
        if multi_buffer::version() < Some((6, 3)) {
            assert!(completes_checksums(lo.index()).is_err());
            return;
        }
        assert!(!completes_checksums(lo.index()).unwrap());
        let error = completes_checksums(0x7fff_ffff).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn attributes_are_found_and_answers_cut_short_are_errors() {
        let mut message = question(33, DEV_GET, (IFINDEX, &[7, 0, 0, 0]));
        let features = [12, 0, 6, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        message.extend(features);
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        let all = attributes(&message, 33).unwrap();
        assert_eq!(attribute(all, IFINDEX), Some([7, 0, 0, 0]));
        assert_eq!(attribute(all, XSK_FEATURES), Some([2, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(attribute::<4>(all, XSK_FEATURES), None, "another length");
        assert_eq!(attribute::<4>(all, 5), None);
        assert!(attributes(&message, 34).is_err(), "of another family");
        for length in 0..message.len() {
            assert!(attributes(&message[..length], 33).is_err(), "{length}");
        }
    }
}
