//! Interfaces of other kinds than veth: which can be opened, how, and what is said about them.
//!
//! Kinds that this kernel has not are skipped; `tests/tests/system/interfaces.rs` has bonds and more.

use net_afxdp::{AttachMode, Interface, Port, PortConfig, Prepared, Probe, Problem, Require};
use rustix::event::PollFlags;

use crate::{
    net::{Net, ip, skipped, try_ip},
    packet::{Packet, frame, wait},
    probe::problems,
    traffic::{config, open, receive},
};

fn refusals(config: &PortConfig) -> [String; 3] {
    let probe = Probe::of(config).unwrap();
    let (blocking, _) = problems(&probe);
    let error = Port::open(config).expect_err("refused").to_string();
    let other = Prepared::open(config).expect_err("refused").to_string();
    [error, other, blocking.first().cloned().unwrap_or_default()]
}

/// A wire with an interface of its own on it, `rwother`, that `ip link add` makes of these words.
fn with(words: &str) -> Option<Net> {
    let net = Net::new()?;
    let words = words.replace("NEAR", &net.near);
    if !try_ip(&format!("link add name rwother {words}")) {
        skipped(&format!("a {words}: this kernel has none"));
        return None;
    }
    ip("link set dev rwother addrgenmode none up");
    Some(net)
}

#[test]
fn an_interface_with_ports_is_opened_in_skb_mode_and_receives() {
    let Some(net) = with("type bridge") else {
        return;
    };
    ip(&format!("link set dev {} master rwother", net.near));
    let (port, mut queue) = open(&config("rwother"));
    assert_eq!(port.mode(), AttachMode::Skb);
    // Ports of bridges take a moment until they forward.
    let far = Packet::open(&net.far);
    let mut got = Vec::new();
    for _ in 0..100 {
        far.send(&frame(1, 64)).unwrap();
        wait(std::os::fd::AsFd::as_fd(&queue), PollFlags::IN);
        queue.receive(1, |fragments| {
            got = fragments.concat();
            std::ops::ControlFlow::Continue(())
        });
        if !got.is_empty() {
            break;
        }
    }
    assert!(got == frame(1, 64));
    drop((port, queue));
    let probe = Probe::interface("rwother").unwrap();
    assert!(probe.would_open());
    assert!(probe.native.is_refused() && probe.zero_copy.is_refused());
}

#[test]
fn native_mode_of_an_interface_with_ports_is_refused_with_what_to_do() {
    let Some(net) = with("type bridge") else {
        return;
    };
    ip(&format!("link set dev {} master rwother", net.near));
    let what = format!(
        "rwother has ports ({}), and in native mode an XDP program runs on these",
        net.near
    );
    let fix = format!("Use a port itself, such as {}, or skb mode", net.near);
    let native = PortConfig {
        mode: Some(AttachMode::Native),
        ..config("rwother")
    };
    let required = [Require::Native, Require::ZeroCopy].map(|require| PortConfig {
        require,
        ..config("rwother")
    });
    for config in [native].into_iter().chain(required) {
        for text in refusals(&config) {
            assert!(text.contains(&what) && text.contains(&fix), "{text}");
            assert!(!text.contains("ethtool -L"), "{text}");
        }
    }
    assert_eq!(
        Interface::by_name("rwother").unwrap().xdp_program(),
        None,
        "nothing is left behind"
    );
}

#[test]
fn a_port_of_another_interface_is_known_with_its_master() {
    let Some(net) = with("type bridge") else {
        return;
    };
    ip(&format!("link set dev {} master rwother", net.near));
    let (blocking, known) = problems(&Probe::interface(&net.near).unwrap());
    assert!(blocking.is_empty(), "{blocking:?}");
    let note = format!("{} is a port of rwother (bridge), which gets", net.near);
    let fix = format!("`ip link set dev {} nomaster`", net.near);
    assert!(
        known[0].contains(&note) && known[0].contains(&fix),
        "{known:?}"
    );
    // That is so: what arrives comes to the socket.
    let (_port, mut queue) = open(&config(&net.near));
    Packet::open(&net.far).send(&frame(1, 64)).unwrap();
    assert!(receive(&mut queue, 1) == [frame(1, 64)]);
    // The fix, followed.
    ip(&format!("link set dev {} nomaster", net.near));
    let (_, known) = problems(&Probe::interface(&net.near).unwrap());
    assert!(!known.iter().any(|it| it.contains("port of")), "{known:?}");
}

#[test]
fn a_number_of_queues_that_can_t_be_changed_has_no_command_for_that() {
    let Some(_net) = with("numrxqueues 4 numtxqueues 4 type ifb") else {
        return;
    };
    let (_, known) = problems(&Probe::interface("rwother").unwrap());
    let note = known.iter().find(|it| it.contains("spreads what it"));
    let note = note.unwrap_or_else(|| panic!("{known:?}"));
    assert!(
        note.ends_with("queues=4, with as many vCPUs if each is to have a thread of its own"),
        "{note}"
    );
    assert!(!note.contains("ethtool -L"), "{note}");
}

#[test]
fn an_interface_without_ethernet_is_refused() {
    let Some(_net) = Net::new() else { return };
    if !try_ip("tuntap add mode tun name rwother") {
        skipped("a tun interface: this kernel has none");
        return;
    }
    ip("link set dev rwother up");
    for text in refusals(&config("rwother")) {
        for part in [
            "rwother can't be used: it carries no Ethernet frames",
            "its link type is none (ARPHRD 65534)",
            "instead of it, a tap, gretap or VXLAN",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert_eq!(Interface::by_name("rwother").unwrap().xdp_program(), None);
    // Frames of a tap have an Ethernet header, and so have those of the loopback interface.
    ip("tuntap add mode tap name rwtap");
    for name in ["rwtap", "lo"] {
        ip(&format!("link set dev {name} up"));
        let (port, _queue) = open(&config(name));
        assert_eq!(port.interface().name(), name);
    }
}

#[test]
fn an_interface_can_be_named_by_each_of_its_names() {
    let Some(net) = Net::new() else { return };
    let long = "an-alternative-name-of-more-than-15-bytes-".repeat(4)[..127].to_owned();
    for name in ["rwshort", &long] {
        ip(&format!(
            "link property add dev {} altname {name}",
            net.near
        ));
        let (blocking, _) = problems(&Probe::interface(name).unwrap());
        assert!(blocking.is_empty(), "{blocking:?}");
        let (port, mut queue) = open(&config(name));
        assert_eq!(port.interface().name(), net.near);
        Packet::open(&net.far).send(&frame(1, 64)).unwrap();
        assert!(receive(&mut queue, 1) == [frame(1, 64)], "{name}");
        drop((port, queue));
        let prepared = Prepared::open(&config(name)).unwrap();
        assert_eq!(prepared.interface().name(), net.near);
    }
    for name in ["rwmissing", &long[1..]] {
        let text = Port::open(&config(name)).unwrap_err().to_string();
        assert!(text.starts_with("there is no network interface"), "{text}");
    }
}

/// A macvlan gets what is to its own address or to groups, however promiscuous it is, unless it has its card for itself.
#[test]
fn a_macvlan_needs_its_own_address_for_the_guest() {
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
    for (mode, shares) in [("bridge", true), ("passthru", false)] {
        let Some(net) = with(&format!("link NEAR type macvlan mode {mode}")) else {
            return;
        };
        let interface = Interface::by_name("rwother").unwrap();
        let own = interface.mac().unwrap();
        let note = |mac| Problem::of_other_addresses(&interface, mac);
        assert_eq!(note(Some(own)), None, "{mode}");
        for mac in [None, Some(OTHER)] {
            assert_eq!(note(mac).is_some(), shares, "{mode}");
        }
        let own_text: Vec<_> = own.iter().map(|byte| format!("{byte:02x}")).collect();
        let own_text = own_text.join(":");
        if let Some(problem) = note(None) {
            assert!(!problem.blocks);
            assert!(
                problem.what.contains(&own_text),
                "{problem:?} without {own_text}"
            );
            assert!(
                problem.fix.starts_with(&format!("mac={own_text} ")),
                "{problem:?}"
            );
        }
        // That is so.
        let (_port, mut queue) = open(&config("rwother"));
        let far = Packet::open(&net.far);
        let to = |mac: [u8; 6], number| {
            let mut frame = frame(number, 64);
            frame[..6].copy_from_slice(&mac);
            frame
        };
        far.send(&to(OTHER, 1)).unwrap();
        far.send(&to(own, 2)).unwrap();
        let first = receive(&mut queue, 1).remove(0);
        let expected = if shares { to(own, 2) } else { to(OTHER, 1) };
        assert!(first == expected, "{mode}");
    }
}

/// The kernel takes the tag off before it hands a frame to an interface above the one that it came through.
#[test]
fn tags_that_are_gone_before_a_frame_arrives_are_known() {
    let Some(net) = with("link NEAR type macvlan mode bridge") else {
        return;
    };
    let (_, known) = problems(&Probe::interface("rwother").unwrap());
    let note = "VLAN tags are taken off the frames before they come to rwother";
    assert!(known.iter().any(|it| it.contains(note)), "{known:?}");
    // That is so.
    let (_port, mut queue) = open(&config("rwother"));
    let plain = frame(1, 64);
    let tagged = [&plain[..12], &[0x81, 0, 0, 7], &plain[12..]].concat();
    Packet::open(&net.far).send(&tagged).unwrap();
    assert!(receive(&mut queue, 1) == [plain]);
}
