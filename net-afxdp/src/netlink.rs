//! rtnetlink messages about interfaces: one question, one answer; and the parts of one that matter.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::program::ForeignProgram;

/// Longest message that the kernel sends about one interface: it allots 16 KiB for a dump and
/// less for one; virtual functions make it long.
pub(crate) const MESSAGE_SPACE: usize = 64 * 1024;

/// What a message says about an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Maximum transmission unit in bytes, without the Ethernet header.
    pub(crate) mtu: u32,
    pub(crate) mac: Option<[u8; 6]>,
    /// Switched on (`ip link set up`).
    pub(crate) admin_up: bool,
    /// Switched on and the other end is there.
    pub(crate) running: bool,
    pub(crate) rx_queues: u32,
    pub(crate) tx_queues: u32,
    pub(crate) xdp: Option<ForeignProgram>,
}

/// How to name the interface asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
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
        self.answer.clear();
        self.socket.recv(&mut self.answer, 0)?;
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.answer)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                Ok(link_info(&link))
            }
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an answer to another question",
            )),
        }
    }
}

fn question(which: Which<'_>) -> Vec<u8> {
    let mut link = LinkMessage::default();
    match which {
        Which::Name(name) => link.attributes.push(LinkAttribute::IfName(name.to_owned())),
        Which::Index(index) => link.header.index = index,
    }
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(link));
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), payload);
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    bytes
}

/// Picks out what matters.
pub(crate) fn link_info(link: &LinkMessage) -> LinkInfo {
    let up = link.header.flags.contains(LinkFlags::Up);
    let mut info = LinkInfo {
        index: link.header.index,
        admin_up: up,
        running: up && link.header.flags.contains(LinkFlags::Running),
        ..LinkInfo::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => info.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
            LinkAttribute::Address(address) => info.mac = address.as_slice().try_into().ok(),
            LinkAttribute::NumRxQueues(count) => info.rx_queues = *count,
            LinkAttribute::NumTxQueues(count) => info.tx_queues = *count,
            LinkAttribute::Xdp(xdp) => info.xdp = xdp_program(xdp),
            _ => {}
        }
    }
    info
}

fn xdp_program(attributes: &[LinkXdp]) -> Option<ForeignProgram> {
    let mut mode = None;
    let mut id = None;
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(XdpAttached::None) => return None,
            LinkXdp::Attached(XdpAttached::Driver) => mode = Some("native"),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some("skb"),
            LinkXdp::Attached(XdpAttached::Hardware) => mode = Some("offloaded"),
            LinkXdp::Attached(_) => mode = Some("several"),
            // With several modes there is no ProgId, but one of each mode.
            LinkXdp::ProgId(number)
            | LinkXdp::DrvProgId(number)
            | LinkXdp::SkbProgId(number)
            | LinkXdp::HwProgId(number) => id = id.or(Some(*number)),
            _ => {}
        }
    }
    Some(ForeignProgram {
        id: id?,
        name: None,
        mode: mode?,
    })
}

/// Whether the message is about an interface itself, and not about its role as a bridge port,
/// which comes with the same message types.
pub(crate) fn is_about_interface(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Unspec
}
