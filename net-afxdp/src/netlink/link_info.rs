//! What a message about an interface says, as far as it matters.

use netlink_packet_core::NlasIterator;
use netlink_packet_route::{
    AddressFamily,
    link::{LinkFlags, LinkHeader},
};

use crate::program::ForeignProgram;

/// Bytes of the header of such a message (`struct ifinfomsg`).
const LINK_HEADER: usize = 16;

/// Mode of a macvlan that hands everything to it (`MACVLAN_MODE_PASSTHRU`).
const PASSTHRU: u32 = 8;
/// Mode of an ipvlan that has Ethernet headers of its own (`IPVLAN_MODE_L2`).
const IPVLAN_L2: u16 = 0;

/// What a message says about an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) index: u32,
    /// What its frames are (`ARPHRD_*`, linux/if_arp.h).
    pub(crate) link_type: u16,
    /// What made it, for `ip link add ... type KIND`. `None`: a driver of hardware, or tun.
    pub(crate) kind: Option<Kind>,
    /// Index of the interface that it is a port of.
    pub(crate) master: Option<u32>,
    /// It is there to have ports (`IFF_MASTER`), though maybe it has none yet.
    pub(crate) for_ports: bool,
    pub(crate) name: String,
    /// Maximum transmission unit in bytes, without the Ethernet header.
    pub(crate) mtu: u32,
    pub(crate) mac: Option<[u8; 6]>,
    /// Switched on (`ip link set up`).
    pub(crate) admin_up: bool,
    /// Switched on and the other end is there.
    pub(crate) running: bool,
    /// Numbers of queues that the driver allotted.
    pub(crate) rx_queues: u32,
    pub(crate) tx_queues: u32,
    pub(crate) xdp: Option<ForeignProgram>,
    /// Index of the interface that it is on or, of a veth, at the other end of; in this network namespace, unless
    /// `link_elsewhere`.
    pub(crate) link: Option<u32>,
    pub(crate) link_elsewhere: bool,
}

/// A kind of interface (`IFLA_INFO_KIND`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: String,
    /// Of macvlan and ipvlan: gets only what is for it, as opposed to all of the interface below.
    pub(crate) shares: bool,
    /// Of ipvlan: carries IP packets only (l3, l3s).
    pub(crate) routes: bool,
}

/// The header, if the message is about an interface itself, and not about its role as a bridge
/// port, which comes with the same message types.
pub(super) fn link_header(payload: &[u8]) -> Option<LinkHeader> {
    let header = LinkHeader::parse(payload).ok()?;
    (header.interface_family == AddressFamily::Unspec).then_some(header)
}

/// Picks out what matters. `None` also for messages that leave most out (wireless events do).
pub(super) fn link_info(payload: &[u8]) -> Option<LinkInfo> {
    let header = link_header(payload)?;
    let up = header.flags.contains(LinkFlags::Up);
    let mut info = LinkInfo {
        index: header.index,
        link_type: header.link_layer_type.into(),
        for_ports: header.flags.contains(LinkFlags::Controller),
        admin_up: up,
        running: up && header.flags.contains(LinkFlags::Running),
        ..LinkInfo::default()
    };
    for attribute in NlasIterator::new(payload.get(LINK_HEADER..)?) {
        let attribute = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
            libc::IFLA_IFNAME => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                info.name = String::from_utf8_lossy(name).into_owned();
            }
            libc::IFLA_MTU => info.mtu = number(value)?,
            libc::IFLA_ADDRESS => info.mac = value.try_into().ok(),
            libc::IFLA_NUM_TX_QUEUES => info.tx_queues = number(value)?,
            libc::IFLA_NUM_RX_QUEUES => info.rx_queues = number(value)?,
            libc::IFLA_LINK => info.link = number(value),
            libc::IFLA_MASTER => info.master = number(value),
            libc::IFLA_LINKINFO => info.kind = kind(value),
            libc::IFLA_LINK_NETNSID => info.link_elsewhere = true,
            libc::IFLA_XDP => info.xdp = xdp_program(value),
            _ => {}
        }
    }
    (!info.name.is_empty()).then_some(info)
}

/// The kind in a nest of `IFLA_INFO_*` attributes, in which it comes before its data (`rtnl_link_info_fill`).
fn kind(nest: &[u8]) -> Option<Kind> {
    let mut kind = Kind::default();
    for attribute in NlasIterator::new(nest) {
        let attribute = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
            libc::IFLA_INFO_KIND => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                kind.name = String::from_utf8_lossy(name).into_owned();
            }
            libc::IFLA_INFO_DATA => read_mode(&mut kind, value),
            _ => {}
        }
    }
    (!kind.name.is_empty()).then_some(kind)
}

/// The mode in the data of a macvlan or an ipvlan (`IFLA_MACVLAN_MODE`, `IFLA_IPVLAN_MODE`: both 1).
fn read_mode(kind: &mut Kind, data: &[u8]) {
    const MODE: u16 = 1;
    let mut attributes = NlasIterator::new(data).map_while(Result::ok);
    let mode = attributes.find(|it| it.kind() == MODE);
    let mode = mode.as_ref().map(|it| it.value()).unwrap_or_default();
    match kind.name.as_str() {
        "macvlan" | "macvtap" => kind.shares = number(mode) != Some(PASSTHRU),
        "ipvlan" | "ipvtap" => {
            let mode = mode.try_into().map(u16::from_ne_bytes);
            kind.shares = true;
            kind.routes = mode.is_ok_and(|it| it != IPVLAN_L2);
        }
        _ => {}
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// The program in a nest of `IFLA_XDP_*` attributes (linux/if_link.h).
fn xdp_program(nest: &[u8]) -> Option<ForeignProgram> {
    const IFLA_XDP_ATTACHED: u16 = 2;
    const IFLA_XDP_PROG_ID: u16 = 4;
    const IFLA_XDP_HW_PROG_ID: u16 = 7;
    let mut mode = None;
    let mut id = None;
    for attribute in NlasIterator::new(nest) {
        let attribute = attribute.ok()?;
        match attribute.kind() {
            IFLA_XDP_ATTACHED => {
                mode = match attribute.value().first()? {
                    0 => return None,
                    1 => Some("native"),
                    2 => Some("skb"),
                    3 => Some("offloaded"),
                    _ => Some("several"),
                }
            }
            // With several modes there is one of each mode instead of the first of these.
            IFLA_XDP_PROG_ID..=IFLA_XDP_HW_PROG_ID => id = id.or(number(attribute.value())),
            _ => {}
        }
    }
    Some(ForeignProgram {
        id: id?,
        name: None,
        mode: mode?,
    })
}
