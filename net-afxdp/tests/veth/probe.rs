//! What a probe finds, and that it changes nothing.

use std::process::Command;

use libbpf_rs::XdpFlags;
use net_afxdp::{Ability, AttachMode, Port, PortConfig, Probe, Require, Source, Trial};

use crate::{
    child,
    foreign::{Foreign, socket},
    net::{Net, ip, skipped},
    traffic::{config, open},
};

/// The problems that are in the way, and the others.
pub(crate) fn problems(probe: &Probe) -> (Vec<String>, Vec<String>) {
    let text = |it: &net_afxdp::Problem| format!("{}: {}", it.what, it.fix);
    let (blocking, known): (Vec<_>, Vec<_>) = probe.problems.iter().partition(|it| it.blocks);
    (
        blocking.into_iter().map(text).collect(),
        known.into_iter().map(text).collect(),
    )
}

/// The only problem that is in the way.
fn problem(config: &PortConfig) -> String {
    let probe = Probe::of(config).unwrap();
    assert!(!probe.would_open());
    let (blocking, _) = problems(&probe);
    assert_eq!(blocking.len(), 1, "{blocking:#?}");
    blocking.into_iter().next().unwrap()
}

/// Has the other end put VLAN tags into frames, so that nothing has to be said about them.
fn with_tags_in_frames(net: &Net) {
    let ethtool = Command::new("ethtool")
        .args(["-K", &net.far])
        .args(["txvlan", "off", "tx-vlan-stag-hw-insert", "off"])
        .status();
    assert!(ethtool.unwrap().success());
}

#[test]
fn tags_that_the_other_end_leaves_beside_frames_are_known() {
    let Some(net) = Net::new() else { return };
    let probe = Probe::interface(&net.near).unwrap();
    let (blocking, known) = problems(&probe);
    assert!(blocking.is_empty(), "{blocking:?}");
    let [note] = &known[..] else {
        panic!("{known:?}");
    };
    assert!(note.contains("come beside the frames"), "{note}");
    let off = "txvlan off tx-vlan-stag-hw-insert off";
    let fix = format!(": `ethtool -K {} {off}`, if VLANs", net.far);
    assert!(note.contains(&fix), "{note}");
    // Half of the fix, and all of it.
    let mut half = Command::new("ethtool");
    let half = half.args(["-K", &net.far, "txvlan", "off"]).status();
    assert!(half.unwrap().success());
    let (_, known) = problems(&Probe::interface(&net.near).unwrap());
    let fix = format!(" `ethtool -K {} tx-vlan-stag-hw-insert off`", net.far);
    assert!(known[0].contains(&fix), "{known:?}");
    with_tags_in_frames(&net);
    let probe = Probe::interface(&net.near).unwrap();
    assert!(probe.problems.is_empty(), "{:?}", probe.problems);
}

#[test]
fn nothing_is_in_the_way_on_veth() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    with_tags_in_frames(&net);
    let config = PortConfig {
        queues: 2,
        ..config(&net.near)
    };
    let probe = Probe::of(&config).unwrap();
    assert!(
        probe.would_open() && probe.problems.is_empty(),
        "{:?}",
        probe.problems
    );
    assert_eq!(probe.driver.as_deref(), Some("veth"));
    assert_eq!(
        (probe.load, probe.lock_memory),
        (Ability::Tried, Ability::Tried)
    );
    assert_eq!(probe.memory_needed, 32 << 20);
    assert!(probe.can_create_sockets && probe.rights.iter().all(|right| right.held));
    if probe.features.is_some() {
        assert_eq!(probe.native, Ability::Promised);
        assert!(probe.zero_copy.is_refused());
    } else {
        skipped("modes of a probe: this kernel (before 6.3) does not tell them");
    }
    assert_eq!(net.interface().xdp_program(), None);
    // What was said is what happens.
    let trial = Probe::try_out(&config).unwrap();
    let (mode, zero_copy, mtu) = (AttachMode::Native, false, 1500);
    assert_eq!(
        trial,
        Trial {
            mode,
            zero_copy,
            tx_checksum: false,
            mtu
        }
    );
    assert_eq!(net.interface().xdp_program(), None);
}

#[test]
fn a_queue_that_is_taken_is_in_the_way() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let (port, queue) = open(&PortConfig {
        start_queue: 1,
        ..config(&net.near)
    });
    drop(port);
    let two = PortConfig {
        queues: 2,
        ..config(&net.near)
    };
    if Probe::of(&two).unwrap().bound.is_none() {
        skipped("a queue that a probe finds taken: this kernel has no CONFIG_XDP_SOCKETS_DIAG");
        return;
    }
    let start = format!(
        "an AF_XDP socket of user 0 is bound to queue 1 of {}",
        net.near
    );
    let text = problem(&two);
    assert!(text.starts_with(&start), "{text}");
    assert!(Probe::interface(&net.near).unwrap().would_open());
    drop(queue);
}

#[test]
fn too_many_queues_and_contradictions() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let text = problem(&PortConfig {
        queues: 2,
        start_queue: 1,
        ..config(&net.near)
    });
    let start = format!("{} has the queues 0 to 1, but 2 from 1 on", net.near);
    assert!(text.starts_with(&start), "{text}");
    let text = problem(&PortConfig {
        queues: 0,
        ..config(&net.near)
    });
    assert!(text.starts_with("at least one queue"), "{text}");
}

#[test]
fn a_program_of_others_is_in_the_way() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    // Its queue is free: only the program is there.
    let port = Port::open(&PortConfig {
        start_queue: 1,
        ..config(&net.near)
    })
    .unwrap();
    let text = problem(&config(&net.near));
    assert!(
        text.starts_with(&format!("another XDP program is on {} (id ", net.near))
            && text.contains("name ringwire_xsk, mode native"),
        "{text}"
    );
    drop(port);
}

#[test]
fn what_others_hand_over_is_checked_and_not_used_up() {
    let Some(net) = Net::new() else { return };
    with_tags_in_frames(&net);
    let config = PortConfig {
        frames: 64,
        ..config(&net.near)
    };
    let none = Source::Sockets(vec![socket()]);
    let probe = Probe::of_source(&config, &none).unwrap();
    let (blocking, known) = problems(&probe);
    assert!(blocking.is_empty(), "{blocking:?}");
    assert!(known[0].contains("there is no XDP program on"), "{known:?}");

    let foreign = Foreign::attach(net.interface().index(), 1, XdpFlags::DRV_MODE);
    for source in [Source::Map(foreign.map_fd()), none] {
        let probe = Probe::of_source(&config, &source).unwrap();
        assert!(probe.problems.is_empty(), "{:?}", probe.problems);
        assert!(!foreign.taken(0));
        drop(Port::open_from(&config, source).unwrap());
    }
    let missing = Source::PinnedMap {
        path: "/rw-not-there".into(),
        start_index: 0,
    };
    for (source, part) in [
        (Source::Sockets(Vec::new()), "0 sockets were handed over"),
        (Source::Map(socket()), "is not a BPF map"),
        (missing, "cannot open the pinned map /rw-not-there"),
        (
            Source::Plugin("/dev/null".into()),
            "no socket of a device plugin",
        ),
    ] {
        let probe = Probe::of_source(&config, &source).unwrap();
        let (blocking, _) = problems(&probe);
        assert_eq!(blocking.len(), 1, "{blocking:?}");
        assert!(blocking[0].contains(part), "{part}: {blocking:?}");
    }
    let probe = Probe::of_source(
        &PortConfig {
            mode: Some(AttachMode::Skb),
            ..config
        },
        &Source::Map(foreign.map_fd()),
    );
    let (blocking, _) = problems(&probe.unwrap());
    assert!(
        blocking[0].contains("skb mode was asked for"),
        "{blocking:?}"
    );
}

#[test]
fn what_is_required_is_compared_with_what_the_driver_says() {
    let Some(net) = Net::new() else { return };
    if Probe::interface(&net.near).unwrap().features.is_none() {
        skipped("requirements of a probe: this kernel (before 6.3) does not tell modes");
        return;
    }
    let text = problem(&PortConfig {
        require: Require::ZeroCopy,
        ..config(&net.near)
    });
    assert!(text.starts_with("zero-copy does not work on"), "{text}");
    let text = problem(&PortConfig {
        require: Require::Native,
        ..config("lo")
    });
    assert!(
        text.starts_with("native mode does not work on lo"),
        "{text}"
    );
}

#[test]
fn a_link_that_is_down_is_known_but_not_in_the_way() {
    let Some(net) = Net::new() else { return };
    for (end, part) in [(&net.far, "has no carrier"), (&net.near, "is down")] {
        ip(&format!("link set dev {end} down"));
        let probe = Probe::interface(&net.near).unwrap();
        let (blocking, known) = problems(&probe);
        assert!(blocking.is_empty(), "{blocking:?}");
        assert!(known.iter().any(|text| text.contains(part)), "{known:?}");
    }
}

#[test]
fn too_little_locked_memory_is_found_by_trying() {
    let Some(net) = Net::new() else { return };
    let mut child = child::start("probe-little-memory", &net.near);
    let text = child::line(&mut child);
    assert!(child.wait().unwrap().success());
    assert!(
        text.starts_with("16384 KiB of memory can't be locked") && text.contains("is 64 KiB"),
        "{text}"
    );
}

#[test]
fn queues_that_nobody_opens_are_known_with_their_fix() {
    let Some(net) = Net::with_queues(4) else {
        return;
    };
    with_tags_in_frames(&net);
    let wanted = |start_queue, queues| PortConfig {
        start_queue,
        queues,
        frames: 64,
        ..config(&net.near)
    };
    for (start_queue, queues, what) in [
        (0, 1, "queue 0 is opened: what arrives on 1, 2, 3 goes"),
        (1, 2, "1 to 2 are opened: what arrives on 0, 3 goes"),
    ] {
        let probe = Probe::of(&wanted(start_queue, queues)).unwrap();
        assert!(probe.would_open());
        let [problem] = &probe.problems[..] else {
            panic!("{:?}", probe.problems);
        };
        assert!(problem.what.contains(what), "{problem:?}");
        assert!(problem.fix.contains("queues=4"), "{problem:?}");
    }
    let all = Probe::of(&wanted(0, 4)).unwrap();
    assert!(all.problems.is_empty(), "{:?}", all.problems);
    // The fix, followed to the letter.
    let one = Probe::of(&wanted(0, 1)).unwrap();
    let fix = &one.problems[0].fix;
    let command = fix.strip_prefix('`').and_then(|fix| fix.split_once('`'));
    let (command, _) = command.expect("a command");
    assert_eq!(command, format!("ethtool -L {} rx 1 tx 1", net.near));
    // veth refuses to have fewer receive queues than the peer sends from.
    for words in [&format!("ethtool -L {} tx 1", net.far), command] {
        let mut words = words.split(' ');
        let mut ethtool = Command::new(words.next().unwrap());
        assert!(ethtool.args(words).status().unwrap().success());
    }
    let one = Probe::of(&wanted(0, 1)).unwrap();
    assert!(one.problems.is_empty(), "{:?}", one.problems);
}
