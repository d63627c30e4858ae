//! What should be known about an interface, whoever opens it and with whatever options.

use super::problem::{Problem, known};
use crate::{ethtool, interface::Interface, kind, wireless};

/// Offloads that take VLAN tags off frames that a card receives, by ethtool's names; and those by which a veth's other
/// end leaves them beside the frames that it sends. The first of each is for 802.1Q, the other for 802.1ad.
const STRIP: [&str; 2] = ["rxvlan", "rx-vlan-stag-hw-parse"];
const BESIDE: [&str; 2] = ["txvlan", "tx-vlan-stag-hw-insert"];

/// All of it.
pub(super) fn find(interface: &Interface) -> Vec<Problem> {
    let mut notes: Vec<_> = port_of_another(interface).into_iter().collect();
    notes.extend(tags(interface));
    notes
}

/// Tells it in the log, as far as it matters here and now.
pub(crate) fn warn(interface: &Interface) {
    let vlans = |peer: Interface| peer.has_vlans();
    let mut notes: Vec<_> = port_of_another(interface).into_iter().collect();
    // Most interfaces at the other end of a veth have no VLANs.
    if !is_veth(interface) || interface.peer().is_some_and(vlans) {
        notes.extend(tags(interface));
    }
    for Problem { what, fix, .. } in notes {
        tracing::warn!("{what}. To change that: {fix}");
    }
}

fn is_veth(interface: &Interface) -> bool {
    matches!(ethtool::driver(interface.name()), Ok(Some(driver)) if driver == "veth")
}

/// The XDP program comes before bridges and their like, in both modes.
fn port_of_another(interface: &Interface) -> Option<Problem> {
    let master = interface.master()?;
    let kind = master.kind().map_or("", |kind| kind.name.as_str());
    let (name, other) = (interface.name(), master.name());
    let take_out = match kind {
        "openvswitch" => format!("`ovs-vsctl del-port {name}`"),
        _ => format!("`ip link set dev {name} nomaster`"),
    };
    let kind = match kind {
        "" => String::new(),
        kind => format!(" ({kind})"),
    };
    Some(known(
        format!(
            "{name} is a port of {other}{kind}, which gets nothing any more of what arrives at queues of \
             {name} that are opened"
        ),
        format!("{take_out}; or use an interface of its own, such as one end of a veth pair"),
    ))
}

/// VLAN tags that do not come in the frames, so that XDP does not see them: frames of all VLANs look as if they were
/// of none.
fn tags(interface: &Interface) -> Option<Problem> {
    let name = interface.name();
    if kind::is_above_others(interface) {
        return Some(known(
            format!(
                "VLAN tags are taken off the frames before they come to {name}, so they get lost: \
                 frames of all VLANs arrive without one"
            ),
            "use the interface that they come through itself, if VLANs are used",
        ));
    }
    // Of a veth, the switch is for the kernel's own frames, and it is the other end's that matters.
    if is_veth(interface) {
        return tags_of_the_peer(interface);
    }
    let off = switch_off(interface, STRIP)?;
    Some(known(
        format!(
            "{name} takes VLAN tags off the frames that it receives, so they get lost: frames of all \
             VLANs arrive without one"
        ),
        format!("`ethtool -K {name} {off}`, if VLANs are used"),
    ))
}

/// What a VLAN interface on the other end of a veth sends has its tag beside the frame, unless that end has to put
/// it in. Known of an end in this network namespace only.
fn tags_of_the_peer(interface: &Interface) -> Option<Problem> {
    let peer = interface.peer()?;
    let off = switch_off(&peer, BESIDE)?;
    let (name, peer) = (interface.name(), peer.name());
    Some(known(
        format!(
            "tags of a VLAN interface on {peer}, the other end of {name}, come beside the frames, not \
             in them, so they get lost"
        ),
        format!("`ethtool -K {peer} {off}`, if VLANs are used there"),
    ))
}

/// What `ethtool -K` has to be told to have those of these offloads off that are on. `None`: nothing.
fn switch_off(interface: &Interface, names: [&str; 2]) -> Option<String> {
    let offloads = ethtool::offloads(interface.name(), interface.index()).unwrap_or_default();
    let on = |name: &str| offloads.iter().any(|it| it.name == name && it.on);
    let on = names.into_iter().filter(|name| on(name));
    let off: Vec<_> = on.map(|name| format!("{name} off")).collect();
    (!off.is_empty()).then(|| off.join(" "))
}

impl Problem {
    /// Some interfaces get what is to their own address alone, promiscuous or not, and may send from no other: a
    /// macvlan that shares its card, an ipvlan, a Wi-Fi station, a card's virtual function. `mac`: the address that
    /// is to be used on it, if that is known. `None`: it makes no difference, or is the interface's own.
    #[must_use]
    pub fn of_other_addresses(interface: &Interface, mac: Option<[u8; 6]>) -> Option<Self> {
        let (name, own) = (interface.name(), interface.mac()?);
        if mac == Some(own) {
            return None;
        }
        let [a, b, c, d, e, f] = own;
        let own = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        let is_virtual = || ethtool::is_virtual_function(name).unwrap_or(false);
        let (what, other) = if let Some(kind) = kind::sharing(interface) {
            let (article, other) = match kind.name.as_str() {
                "macvlan" | "macvtap" => ("a", ", or a macvlan in mode passthru"),
                _ => (
                    "an",
                    ", and the guest's IP addresses for the ipvlan on this host, too",
                ),
            };
            (
                format!("{name} is {article} {}, which gets", kind.name),
                other,
            )
        } else if wireless::has_one_address(interface.index()) {
            let what = format!("{name} is a Wi-Fi station, which gets");
            (what, ", or, where the access point knows it, 4addr mode")
        } else if is_virtual() {
            let what = format!("{name} is a virtual function of a card (SR-IOV), which may get");
            (
                what,
                ", or `ip link set dev CARD vf NUMBER trust on spoofchk off`",
            )
        } else {
            return None;
        };
        let whose = match mac {
            Some(_) => "that of the guest is another one",
            None => "a guest's is another one, unless it is set",
        };
        Some(known(
            format!("{what} only what is to its own address, {own}, or to groups: {whose}"),
            format!("mac={own} for the guest's card (--device){other}"),
        ))
    }
}
