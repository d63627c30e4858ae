//! Programs, maps and sockets of others.

use std::os::fd::AsFd;

use libbpf_rs::XdpFlags;
use net_afxdp::{AttachMode, Port, PortConfig, Prepared, Require, Source};

use crate::{
    foreign::{Bpffs, Foreign, carry_traffic, other_map, socket, with_ring},
    net::{Net, ip, skipped},
    packet::{Packet, frame},
    traffic::{MODES, config, receive, send},
};

pub(crate) fn small(net: &Net) -> PortConfig {
    PortConfig {
        frames: 64,
        ..config(&net.near)
    }
}

pub(crate) fn refusal(config: &PortConfig, source: Source) -> String {
    match Port::open_from(config, source) {
        Ok(port) => panic!("opened: {port:?}"),
        Err(error) => error.to_string(),
    }
}

fn native(net: &Net, slots: u32) -> Foreign {
    Foreign::attach(net.interface().index(), slots, XdpFlags::DRV_MODE)
}

#[test]
fn prepared_sockets_carry_traffic_on_every_queue() {
    let Some(net) = Net::with_queues(3) else {
        return;
    };
    for mode in MODES {
        let config = PortConfig {
            queues: 2,
            mode: Some(mode),
            ..small(&net)
        };
        let mut prepared = Prepared::open(&config).unwrap();
        assert_eq!(prepared.mode(), mode);
        let mut port = Port::open_from(&config, prepared.take_source()).unwrap();
        assert_eq!(port.mode(), mode);
        carry_traffic(&net, &mut port.take_queues());
    }
    assert_eq!(net.interface().xdp_program(), None);
}

#[test]
fn prepared_sockets_take_large_frames() {
    let Some(net) = Net::new() else { return };
    for end in [&net.near, &net.far] {
        ip(&format!("link set dev {end} mtu 9000"));
    }
    let mut prepared = Prepared::open(&small(&net)).unwrap();
    let source = prepared.take_source();
    let mut port = Port::open_from(&small(&net), source).unwrap();
    if port.mtu() < 9000 {
        skipped("large frames of prepared sockets: this kernel has none of several chunks");
        return;
    }
    let mut queue = port.take_queues().remove(0);
    let far = Packet::open(&net.far);
    far.send(&frame(1, 9014)).unwrap();
    assert!(receive(&mut queue, 1) == [frame(1, 9014)]);
    send(&mut queue, &frame(2, 9014)).unwrap();
    queue.flush().unwrap();
    assert!(far.receive().as_deref() == Some(&frame(2, 9014)));
}

#[test]
fn sockets_can_be_for_later_queues() {
    let Some(net) = Net::with_queues(3) else {
        return;
    };
    let config = PortConfig {
        start_queue: 1,
        queues: 2,
        ..small(&net)
    };
    let mut prepared = Prepared::open(&config).unwrap();
    let source = prepared.take_source();
    let mut port = Port::open_from(&config, source).unwrap();
    let mut queues = port.take_queues();
    assert_eq!(queues.iter().map(|it| it.id()).collect::<Vec<_>>(), [1, 2]);
    carry_traffic(&net, &mut queues);
}

#[test]
fn a_map_handed_over_gets_the_sockets_at_their_queues() {
    let Some(net) = Net::with_queues(3) else {
        return;
    };
    for (flags, mode) in [
        (XdpFlags::DRV_MODE, AttachMode::Native),
        (XdpFlags::SKB_MODE, AttachMode::Skb),
    ] {
        let foreign = Foreign::attach(net.interface().index(), 2, flags);
        let program = net.interface().xdp_program().cloned();
        let config = PortConfig {
            start_queue: 1,
            ..small(&net)
        };
        let mut port = Port::open_from(&config, Source::Map(foreign.map_fd())).unwrap();
        assert_eq!(port.mode(), mode);
        assert!(!foreign.taken(0) && foreign.taken(1));
        let mut queues = port.take_queues();
        carry_traffic(&net, &mut queues);
        drop(port);
        assert!(!foreign.taken(1), "taken out while the queue lives");
        drop(queues);
        assert_eq!(net.interface().xdp_program().cloned(), program);
        ip(&format!("link set dev {} xdp off", net.near));
        ip(&format!("link set dev {} xdpgeneric off", net.near));
    }
}

#[test]
fn a_pinned_map_gets_the_sockets_from_its_start_index_on() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let bpffs = Bpffs::mount();
    let mut foreign = native(&net, 8);
    let path = bpffs.path("xsks");
    foreign.map.pin(&path).unwrap();
    let two = PortConfig {
        queues: 2,
        ..small(&net)
    };
    let pinned = |start_index| Source::PinnedMap {
        path: path.clone(),
        start_index,
    };
    let mut port = Port::open_from(&two, pinned(0)).unwrap();
    carry_traffic(&net, &mut port.take_queues());
    drop(port);

    let port = Port::open_from(&two, pinned(5)).unwrap();
    let taken: Vec<_> = (0..8).filter(|slot| foreign.taken(*slot)).collect();
    assert_eq!(taken, [5, 6]);
    drop(port);
    assert!((0..8).all(|slot| !foreign.taken(slot)));
}

#[test]
fn traffic_comes_from_the_slots_of_the_start_index() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let bpffs = Bpffs::mount();
    let index = net.interface().index();
    let mut foreign = Foreign::attach_shifted(index, XdpFlags::DRV_MODE);
    let path = bpffs.path("xsks");
    foreign.map.pin(&path).unwrap();
    let config = PortConfig {
        queues: 2,
        ..small(&net)
    };
    let start_index = 5;
    let source = Source::PinnedMap { path, start_index };
    let mut port = Port::open_from(&config, source).unwrap();
    carry_traffic(&net, &mut port.take_queues());
}

#[test]
fn maps_that_do_not_fit() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let bpffs = Bpffs::mount();
    let mut foreign = native(&net, 2);
    let id = net.interface().xdp_program().unwrap().id;
    let path = bpffs.path("xsks");
    foreign.map.pin(&path).unwrap();
    let two = PortConfig {
        queues: 2,
        ..small(&net)
    };
    let pinned = |start_index| Source::PinnedMap {
        path: path.clone(),
        start_index,
    };
    let text = refusal(&two, pinned(1));
    assert!(
        text.contains("has 2 slots, the first of which is 0, but the slots 1 to 2 are needed"),
        "{text}"
    );
    let text = refusal(&two, pinned(u32::MAX));
    assert!(text.contains("4294967295 to 4294967296"), "{text}");

    let other = other_map();
    let map = other.as_fd().try_clone_to_owned().unwrap();
    let text = refusal(&two, Source::Map(map));
    assert!(
        text.contains("the map \"rw_array\"") && text.contains("does not hold AF_XDP sockets"),
        "{text}"
    );
    let text = refusal(&two, Source::Map(socket()));
    assert!(text.contains("is not a BPF map"), "{text}");

    let missing = bpffs.path("missing");
    let text = refusal(
        &two,
        Source::PinnedMap {
            path: missing.clone(),
            start_index: 0,
        },
    );
    let start = format!(
        "{}: cannot open the pinned map {}: No such file",
        net.near,
        missing.display()
    );
    assert!(text.starts_with(&start), "{text}");
    assert_eq!(net.interface().xdp_program().unwrap().id, id);
}

#[test]
fn a_slot_of_others_is_left_alone() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let foreign = native(&net, 2);
    let other = with_ring();
    foreign.insert(1, &other);
    let two = PortConfig {
        queues: 2,
        ..small(&net)
    };
    let text = refusal(&two, Source::Map(foreign.map_fd()));
    assert!(
        text.starts_with(&format!("queue 1 of {}: slot 1 of the map", net.near))
            && text.contains("has another socket already"),
        "{text}"
    );
    assert!(!foreign.taken(0) && foreign.taken(1));
}

#[test]
fn the_mode_of_a_foreign_program_must_do() {
    let Some(net) = Net::new() else { return };
    let foreign = Foreign::attach(net.interface().index(), 1, XdpFlags::SKB_MODE);
    let text = refusal(
        &PortConfig {
            mode: Some(AttachMode::Native),
            ..small(&net)
        },
        Source::Map(foreign.map_fd()),
    );
    assert!(
        text.contains("native mode was asked for") && text.contains("runs in skb mode"),
        "{text}"
    );
    let text = refusal(
        &PortConfig {
            require: Require::Native,
            ..small(&net)
        },
        Source::Map(foreign.map_fd()),
    );
    assert!(
        text.contains("native is required, but only skb mode") && text.contains("(id "),
        "{text}"
    );
}

#[test]
fn without_a_program_it_opens_and_works_when_there_is_one() {
    let Some(net) = Net::new() else { return };
    let ours = socket();
    let same = ours.try_clone().unwrap();
    let mut port = Port::open_from(&small(&net), Source::Sockets(vec![ours])).unwrap();
    let foreign = native(&net, 1);
    // A socket that is bound can be put into a map as well.
    foreign.insert(0, &same);
    carry_traffic(&net, &mut port.take_queues());
}

#[test]
fn a_map_that_can_not_be_changed_any_more_is_left_all_the_same() {
    let Some(net) = Net::new() else { return };
    let foreign = Foreign::attach(net.interface().index(), 1, XdpFlags::DRV_MODE);
    let config = PortConfig {
        frames: 64,
        ..config(&net.near)
    };
    let mut port = Port::open_from(&config, Source::Map(foreign.map_fd())).unwrap();
    let queues = port.take_queues();
    // From now on the kernel refuses to take anything out of it (EPERM).
    foreign.map.freeze().unwrap();
    drop(port);
    drop(queues);
    drop(foreign);
    ip(&format!("link set dev {} xdp off", net.near));
    let mut port = Port::open(&config).unwrap();
    carry_traffic(&net, &mut port.take_queues());
}
