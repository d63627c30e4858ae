//! rtnetlink messages about interfaces: one question, one answer; and the parts of one that matter.
//!
//! Of an answer only the attributes needed are read. Parsing all of them would make this
//! depend on what later kernels add to the others.

use std::io;

use netlink_packet_core::{
    DefaultNla, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

mod link_info;

pub(crate) use link_info::{Kind, LinkInfo};
use link_info::{link_header, link_info};

/// Longest name of an interface, in bytes (`IFNAMSIZ` less the terminator).
const NAME_MAX: usize = 15;

/// Attribute of a question: an alternative name (linux/if_link.h).
const IFLA_ALT_IFNAME: u16 = 53;

/// Room for the messages of one read, in bytes. One about an interface has a few KiB, unless one
/// asks for its virtual functions.
pub(crate) const MESSAGE_SPACE: usize = 64 * 1024;

/// A message, as far as it matters.
#[derive(Debug)]
pub(crate) enum Message {
    /// An interface is there or has changed.
    Link(LinkInfo),
    /// The interface of that index is gone.
    Gone(u32),
    /// The answer is an error (0: success).
    Error(i32),
    /// The end of several answers.
    Done,
    /// Anything else.
    Other,
}

/// How to name the interface asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
    /// Its name, or another one that it has (`ip link property add ... altname`).
    Name(&'a str),
    Index(u32),
}

/// A socket for questions about interfaces of the network namespace that it was opened in.
#[derive(Debug)]
pub(crate) struct Asker {
    socket: Socket,
    answer: Vec<u8>,
}

impl Asker {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            answer: Vec::with_capacity(MESSAGE_SPACE),
        })
    }

    /// Asks about one interface.
    ///
    /// # Errors
    /// The system's: `ENODEV` when there is no such interface.
    pub(crate) fn ask(&mut self, which: Which<'_>) -> io::Result<LinkInfo> {
        self.socket.send(&question(which), 0)?;
        self.read()?;
        match messages(&self.answer).next() {
            Some(Message::Link(info)) => Ok(info),
            Some(Message::Error(code)) => Err(io::Error::from_raw_os_error(code.abs())),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the kernel's answer is not about an interface",
            )),
        }
    }

    /// Asks about all interfaces, and keeps those that are `wanted`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn all(&mut self, wanted: impl Fn(&LinkInfo) -> bool) -> io::Result<Vec<LinkInfo>> {
        self.socket
            .send(&request(LinkMessage::default(), NLM_F_DUMP), 0)?;
        let mut found = Vec::new();
        loop {
            self.read()?;
            for message in messages(&self.answer) {
                match message {
                    Message::Link(info) if wanted(&info) => found.push(info),
                    Message::Error(code) => return Err(io::Error::from_raw_os_error(code.abs())),
                    Message::Done => return Ok(found),
                    _ => {}
                }
            }
        }
    }

    /// Reads what the kernel says next.
    fn read(&mut self) -> io::Result<()> {
        loop {
            self.answer.clear();
            match self.socket.recv(&mut self.answer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }
}

fn question(which: Which<'_>) -> Vec<u8> {
    let mut link = LinkMessage::default();
    match which {
        // Up to 15 bytes, the kernel looks for both kinds of names.
        Which::Name(name) if name.len() <= NAME_MAX => {
            link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        }
        Which::Name(name) => {
            let name = [name.as_bytes(), &[0]].concat();
            let name = DefaultNla::new(IFLA_ALT_IFNAME, name);
            link.attributes.push(LinkAttribute::Other(name));
        }
        Which::Index(index) => link.header.index = index,
    }
    request(link, 0)
}

fn request(link: LinkMessage, flags: u16) -> Vec<u8> {
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(link));
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), payload);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    bytes
}

/// The messages in what one read returned.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message> {
    std::iter::from_fn(move || {
        let buffer = NetlinkBuffer::new_checked(&bytes).ok()?;
        let payload = bytes.get(16..usize::try_from(buffer.length()).ok()?)?;
        let message = message(buffer.message_type(), payload);
        // Padded to 4 bytes (NLMSG_ALIGN).
        let length = usize::try_from(buffer.length()).ok()?.next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
        Some(message)
    })
}

fn message(kind: u16, payload: &[u8]) -> Message {
    let parsed = match i32::from(kind) {
        libc::NLMSG_ERROR => payload
            .first_chunk()
            .map(|code| Message::Error(i32::from_ne_bytes(*code))),
        libc::NLMSG_DONE => Some(Message::Done),
        kind if kind == i32::from(libc::RTM_NEWLINK) => link_info(payload).map(Message::Link),
        kind if kind == i32::from(libc::RTM_DELLINK) => {
            link_header(payload).map(|header| Message::Gone(header.index))
        }
        _ => None,
    };
    parsed.unwrap_or(Message::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of that type: header, ifinfomsg of `family` for interface 7, attributes.
    fn bytes(kind: u16, family: u8, flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family, 0, 1, 0];
        body.extend(7u32.to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        for (kind, value) in attributes {
            let length = u16::try_from(value.len()).unwrap() + 4;
            body.extend(length.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut message = (u32::try_from(body.len()).unwrap() + 16)
            .to_ne_bytes()
            .to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    fn parse(bytes: &[u8]) -> Vec<Message> {
        messages(bytes).collect()
    }

    #[test]
    fn an_interface_is_read_and_unknown_attributes_are_passed_over() {
        let xdp = [5, 0, 2, 0, 1, 0, 0, 0, 8, 0, 4, 0, 99, 0, 0, 0];
        let message = bytes(
            libc::RTM_NEWLINK,
            0,
            0x41,
            &[
                (libc::IFLA_IFNAME, b"eth7\0"),
                (9999, b"of a later kernel"),
                (libc::IFLA_MTU, &1500u32.to_ne_bytes()),
                (libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 7]),
                (libc::IFLA_LINK, &8u32.to_ne_bytes()),
                (libc::IFLA_XDP, &xdp),
            ],
        );
        let parsed = parse(&message);
        let [Message::Link(info)] = parsed.as_slice() else {
            panic!("{parsed:?}")
        };
        assert_eq!(
            (info.index, info.name.as_str(), info.mtu),
            (7, "eth7", 1500)
        );
        assert_eq!(info.mac, Some([2, 0, 0, 0, 0, 7]));
        assert!(info.admin_up && info.running);
        assert_eq!((info.link, info.link_elsewhere), (Some(8), false));
        let program = info.xdp.clone().unwrap();
        assert_eq!((program.id, program.mode), (99, "native"));
    }

    /// An attribute inside of another one.
    fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap() + 4;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn info(flags: u32, attributes: &[(u16, &[u8])]) -> LinkInfo {
        let name: (u16, &[u8]) = (libc::IFLA_IFNAME, b"a\0");
        let message = bytes(libc::RTM_NEWLINK, 0, flags, &[&[name], attributes].concat());
        match parse(&message).pop() {
            Some(Message::Link(info)) => info,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn kinds_are_read_with_the_modes_that_matter() {
        for (name, mode, shares, routes) in [
            ("macvlan", &4u32.to_ne_bytes()[..], true, false),
            ("macvtap", &8u32.to_ne_bytes(), false, false),
            ("ipvlan", &0u16.to_ne_bytes(), true, false),
            ("ipvlan", &1u16.to_ne_bytes(), true, true),
            ("ipvtap", &2u16.to_ne_bytes(), true, true),
            ("ipvlan", b"", true, false),
            ("bond", &1u8.to_ne_bytes(), false, false),
        ] {
            let data = nested(1, mode);
            let kind = [
                nested(libc::IFLA_INFO_KIND, &[name.as_bytes(), &[0]].concat()),
                nested(libc::IFLA_INFO_DATA, &data),
            ];
            let info = info(0, &[(libc::IFLA_LINKINFO, &kind.concat())]);
            let name = name.to_owned();
            let expected = Kind {
                name,
                shares,
                routes,
            };
            assert_eq!(info.kind, Some(expected));
        }
        assert_eq!(info(0, &[]).kind, None);
        assert_eq!(info(0, &[(libc::IFLA_LINKINFO, b"")]).kind, None);
    }

    #[test]
    fn ports_and_their_masters_are_told() {
        let port = info(0x800, &[(libc::IFLA_MASTER, &9u32.to_ne_bytes())]);
        assert_eq!((port.master, port.for_ports), (Some(9), false));
        let bond = info(0x400, &[]);
        assert_eq!((bond.master, bond.for_ports), (None, true));
        assert_eq!(bond.link_type, 1, "Ethernet");
    }

    #[test]
    fn all_interfaces_can_be_asked_for() {
        let all = Asker::open().unwrap().all(|_| true).unwrap();
        assert!(all.iter().any(|it| it.name == "lo" && it.link_type == 772));
        let none = Asker::open().unwrap().all(|_| false).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn an_interface_that_is_off_does_not_run() {
        let message = bytes(libc::RTM_NEWLINK, 0, 0x40, &[(libc::IFLA_IFNAME, b"a\0")]);
        let parsed = parse(&message);
        let [Message::Link(info)] = parsed.as_slice() else {
            panic!("{parsed:?}")
        };
        assert!(!info.admin_up && !info.running);
        assert_eq!(info.xdp, None);
    }

    #[test]
    fn messages_about_bridge_ports_and_wireless_events_are_others() {
        let bridge = u8::try_from(libc::AF_BRIDGE).unwrap();
        let mut stream = bytes(libc::RTM_DELLINK, bridge, 0, &[]);
        stream.extend(bytes(libc::RTM_NEWLINK, 0, 0, &[(11, b"wireless")]));
        stream.extend(bytes(libc::RTM_DELLINK, 0, 0, &[]));
        let parsed = parse(&stream);
        assert!(
            matches!(
                parsed.as_slice(),
                [Message::Other, Message::Other, Message::Gone(7)]
            ),
            "{parsed:?}"
        );
    }

    #[test]
    fn a_message_cut_short_ends_the_reading() {
        let whole = bytes(libc::RTM_NEWLINK, 0, 0, &[(libc::IFLA_IFNAME, b"eth7\0")]);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_empty(), "{length}");
        }
        let mut lying = whole;
        lying[..4].copy_from_slice(&8u32.to_ne_bytes());
        assert!(parse(&lying).is_empty());
    }
}
