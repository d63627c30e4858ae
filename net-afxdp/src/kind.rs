//! What an interface is made of, as far as that decides how it can be opened: what its frames are, and whether others
//! are its ports.

use std::borrow::Cow;

use crate::{
    config::{PortConfig, Require},
    error::OpenError,
    interface::Interface,
    netlink::Kind,
    program::AttachMode,
};

/// `ARPHRD_ETHER`, and `ARPHRD_LOOPBACK`, whose frames have an Ethernet header as well (linux/if_arp.h).
const ETHERNET: [u16; 2] = [1, 772];

/// What stands for a link type in `ip link` (`link/NAME`), of those without Ethernet that people try.
const LINK_TYPES: [(u16, &str); 14] = [
    (32, "infiniband"),
    (280, "can"),
    (512, "ppp"),
    (519, "rawip"),
    (768, "ipip"),
    (769, "tunnel6"),
    (776, "sit"),
    (778, "gre"),
    (801, "ieee802.11"),
    (803, "ieee802.11/radiotap"),
    (804, "ieee802.15.4"),
    (823, "gre6"),
    (824, "netlink"),
    (65534, "none"),
];

/// Why an interface can be nobody's network card, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) why: String,
    pub(crate) fix: String,
}

impl Unfit {
    /// `None`: it carries Ethernet frames.
    pub(crate) fn find(interface: &Interface) -> Option<Self> {
        let link_type = interface.link_type();
        if !ETHERNET.contains(&link_type) {
            let mut known = LINK_TYPES.iter();
            let name = known.find(|(number, _)| *number == link_type);
            let name = name.map_or("of another kind", |(_, name)| name);
            return Some(Self {
                why: format!(
                    "it carries no Ethernet frames, its link type is {name} (ARPHRD {link_type})"
                ),
                fix: "Use an interface that does: the one that a tunnel's packets go through, or, \
                      instead of it, a tap, gretap or VXLAN"
                    .to_owned(),
            });
        }
        let kind = interface.kind()?;
        let name = interface.name();
        if kind.name == "vrf" {
            return Some(Self {
                why:
                    "it is a VRF, at which no Ethernet frame arrives: it only routes for its ports"
                        .to_owned(),
                fix: "Use one of its ports".to_owned(),
            });
        }
        kind.routes.then(|| Self {
            why: "it is an ipvlan of mode l3, which carries IP packets only".to_owned(),
            fix: format!(
                "Use a macvlan, or `ip link set dev {name} type {} mode l2`",
                kind.name
            ),
        })
    }
}

/// Says so if the interface can be nobody's network card.
///
/// # Errors
/// [`OpenError::Unfit`].
pub(crate) fn check(interface: &Interface) -> Result<(), OpenError> {
    let unfit = Unfit::find(interface);
    unfit.map_or(Ok(()), |Unfit { why, fix }| {
        Err(OpenError::Unfit {
            interface: interface.name().to_owned(),
            why,
            fix,
        })
    })
}

/// Others are its ports: a bond, a bridge, a card that passes frames on to its virtual function (netvsc). Where an
/// XDP program on it can be native, it runs on the ports, whose frames the kernel keeps from sockets that are bound to
/// another interface (`xsk_rcv_check`). The frames of the interface itself are there in the stack only.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    name: String,
    ports: Vec<Interface>,
}

impl Ports {
    /// `None`: it has no ports, and is not there to have some.
    pub(crate) fn of(interface: &Interface) -> Option<Self> {
        let ports = interface.ports();
        let name = interface.name().to_owned();
        (interface.is_for_ports() || !ports.is_empty()).then_some(Self { name, ports })
    }

    pub(crate) fn ports(&self) -> &[Interface] {
        &self.ports
    }

    /// Why it has no native mode, as the end of a sentence.
    pub(crate) fn why_not_native(&self) -> String {
        let Self { name, ports } = self;
        let names: Vec<_> = ports.iter().take(4).map(Interface::name).collect();
        let some = match names.len() {
            0 => String::new(),
            count if count < ports.len() => format!(" ({}, ...)", names.join(", ")),
            _ => format!(" ({})", names.join(", ")),
        };
        format!(
            "{name} has ports{some}, and in native mode an XDP program runs on these, if at all, whose \
             frames do not come to sockets of {name}"
        )
    }

    /// What to do instead.
    pub(crate) fn instead(&self) -> String {
        match self.ports.first() {
            Some(port) => format!("Use a port itself, such as {}, or skb mode", port.name()),
            None => "Use what is to be its port itself, or skb mode".to_owned(),
        }
    }
}

/// How `config` can be had with our own program: on an interface that has ports, in skb mode only.
///
/// # Errors
/// [`OpenError::OnPorts`].
pub(crate) fn settle<'a>(
    config: &'a PortConfig,
    interface: &Interface,
) -> Result<Cow<'a, PortConfig>, OpenError> {
    if config.mode == Some(AttachMode::Skb) {
        return Ok(Cow::Borrowed(config));
    }
    let Some(ports) = Ports::of(interface) else {
        return Ok(Cow::Borrowed(config));
    };
    if config.require != Require::Any {
        let what = format!("{} is required", config.require);
        return Err(on_ports(&ports, what));
    }
    if config.mode == Some(AttachMode::Native) {
        return Err(on_ports(&ports, "native mode was asked for".to_owned()));
    }
    tracing::info!(
        interface = interface.name(),
        "using skb mode, since {}",
        ports.why_not_native()
    );
    Ok(Cow::Owned(PortConfig {
        mode: Some(AttachMode::Skb),
        ..config.clone()
    }))
}

/// Whether a program of others that is there gives its sockets anything.
///
/// # Errors
/// [`OpenError::OnPorts`].
pub(crate) fn check_foreign(interface: &Interface) -> Result<(), OpenError> {
    let program = interface.xdp_program();
    if program.is_none_or(|program| program.mode == "skb") {
        return Ok(());
    }
    let what = "the XDP program that is there runs in native mode".to_owned();
    Ports::of(interface).map_or(Ok(()), |ports| Err(on_ports(&ports, what)))
}

fn on_ports(ports: &Ports, what: String) -> OpenError {
    OpenError::OnPorts {
        interface: ports.name.clone(),
        what,
        why: ports.why_not_native(),
        fix: ports.instead(),
    }
}

/// Whether frames come to it by way of another interface of this host, which has taken VLAN tags off.
pub(crate) fn is_above_others(interface: &Interface) -> bool {
    let above = ["macvlan", "macvtap", "ipvlan", "ipvtap"];
    let kind = interface.kind().map(|kind| kind.name.as_str());
    kind.is_some_and(|kind| above.contains(&kind)) || Ports::of(interface).is_some()
}

/// A kind that gets only what is for its own address, though it is promiscuous.
pub(crate) fn sharing(interface: &Interface) -> Option<&Kind> {
    interface.kind().filter(|kind| kind.shares)
}
