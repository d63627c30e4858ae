//! What is refused, in which words, and that nothing is left behind.

use std::time::Duration;

use net_afxdp::{AttachMode, Port, PortConfig, Probe};

use crate::{
    child,
    net::{Net, ip, skipped},
    packet::{Packet, frame},
    traffic::{config, open, receive, send},
};

fn refusal(config: &PortConfig) -> String {
    match Port::open(config) {
        Ok(port) => panic!("opened: {port:?}"),
        Err(error) => error.to_string(),
    }
}

/// Checks that nothing holds the interface.
fn assert_free(net: &Net) {
    assert_eq!(net.interface().xdp_program(), None);
    let (_port, mut queue) = open(&config(&net.near));
    // From a queue, as that says over which of several the frame goes.
    let (_far_port, mut far) = open(&config(&net.far));
    send(&mut far, &frame(1, 64)).unwrap();
    far.flush().unwrap();
    assert!(receive(&mut queue, 1) == [frame(1, 64)]);
}

#[test]
fn a_probe_sees_what_is_in_the_way_and_changes_nothing() {
    let Some(net) = Net::new() else { return };
    let probe = Probe::interface(&net.near).unwrap();
    assert!(probe.can_create_sockets);
    assert_eq!(probe.interface.xdp_program(), None);
    if let Some(features) = probe.features {
        assert!(features.native && !features.zero_copy, "{features:?}");
    } else {
        skipped("XDP features of a probe: this kernel (before 6.3) does not tell them");
    }
    let (_port, _queue) = open(&config(&net.near));
    let probe = Probe::interface(&net.near).unwrap();
    assert_eq!(probe.interface.xdp_program().unwrap().mode, "native");
}

#[test]
fn a_missing_interface() {
    let Some(_net) = Net::new() else { return };
    let text = refusal(&config("rw-none"));
    assert!(
        text.starts_with("there is no network interface \"rw-none\""),
        "{text}"
    );
}

#[test]
fn more_queues_than_there_are() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    assert_eq!(net.interface().queues(), 2);
    for (start_queue, queues) in [(0, 3), (1, 2), (2, 1)] {
        let text = refusal(&PortConfig {
            start_queue,
            queues,
            ..config(&net.near)
        });
        let start = format!(
            "{} has 2 queues, the first of which is 0, but {queues}",
            net.near
        );
        assert!(text.starts_with(&start), "{text}");
        // veth counts receive and transmit queues each for themselves.
        let count = start_queue + queues;
        let fix = format!("`ethtool -L {} rx {count} tx {count}`", net.near);
        assert!(text.contains(&fix), "{text}");
    }
    assert_free(&net);
}

#[test]
fn a_queue_that_is_taken_is_named_and_the_others_are_released() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    // The program goes with the port, so only the socket is in the way.
    let (port, other) = open(&PortConfig {
        start_queue: 1,
        ..config(&net.near)
    });
    drop(port);
    let text = refusal(&PortConfig {
        queues: 2,
        ..config(&net.near)
    });
    let start = format!(
        "queue 1 of {}: another AF_XDP socket is bound to it",
        net.near
    );
    assert!(text.starts_with(&start), "{text}");
    drop(other);
    let port = Port::open(&PortConfig {
        queues: 2,
        ..config(&net.near)
    });
    assert!(port.is_ok(), "{port:?}");
    drop(port);
    assert_free(&net);
}

#[test]
fn a_queue_that_was_released_a_moment_ago_is_waited_for() {
    let Some(net) = Net::new() else { return };
    for _ in 0..10 {
        let (_port, _queue) = open(&config(&net.near));
    }
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let Some(net) = Net::new() else { return };
    for mode in [AttachMode::Native, AttachMode::Skb] {
        let (port, mut queue) = open(&PortConfig {
            mode: Some(mode),
            ..config(&net.near)
        });
        let id = net.interface().xdp_program().unwrap().id;
        for wanted in [None, Some(AttachMode::Native), Some(AttachMode::Skb)] {
            let text = refusal(&PortConfig {
                mode: wanted,
                ..config(&net.near)
            });
            let name = format!("(id {id}, name ringwire_xsk, mode {mode})");
            assert!(
                text.contains(&name) && text.contains("left alone"),
                "{text}"
            );
        }
        assert_eq!(net.interface().xdp_program().unwrap().id, id);
        Packet::open(&net.far).send(&frame(1, 64)).unwrap();
        assert!(receive(&mut queue, 1) == [frame(1, 64)]);
        drop((port, queue));
    }
    assert_free(&net);
}

#[test]
fn a_foreign_program_without_a_link_is_left_alone() {
    let Some(net) = Net::new() else { return };
    let object = concat!(env!("OUT_DIR"), "/xsk.bpf.o");
    ip(&format!(
        "link set dev {} xdpgeneric obj {object} sec xdp",
        net.near
    ));
    let before = net.interface().xdp_program().cloned();
    let text = refusal(&config(&net.near));
    assert!(
        text.contains("another XDP program") && text.contains("mode skb"),
        "{text}"
    );
    assert_eq!(net.interface().xdp_program().cloned(), before);
    ip(&format!("link set dev {} xdpgeneric off", net.near));
    assert_free(&net);
}

#[test]
fn native_mode_where_the_driver_has_none() {
    let Some(_net) = Net::new() else { return };
    ip("link set dev lo up");
    let text = refusal(&PortConfig {
        mode: Some(AttachMode::Native),
        ..config("lo")
    });
    let start = "lo: cannot attach the XDP program in native mode, which was asked for: ";
    assert!(text.starts_with(start), "{text}");
    // Left open, it falls back.
    let (port, _queue) = open(&config("lo"));
    assert_eq!(port.mode(), AttachMode::Skb);
}

#[test]
fn too_little_locked_memory() {
    let Some(net) = Net::new() else { return };
    let mut child = child::start("little-memory", &net.near);
    let text = child::line(&mut child);
    assert!(child.wait().unwrap().success());
    let start = format!("queue 0 of {}: cannot lock 16384 KiB of memory", net.near);
    assert!(text.starts_with(&start), "{text}");
    for part in ["is 64 KiB", "ulimit -l", "CAP_IPC_LOCK"] {
        assert!(text.contains(part), "{text}");
    }
    assert_free(&net);
}

#[test]
fn no_right_to_load_a_program() {
    let Some(net) = Net::new() else { return };
    let mut child = child::start("no-bpf", &net.near);
    let text = child::line(&mut child);
    assert!(child.wait().unwrap().success());
    assert!(
        text.starts_with(&format!("{}: cannot load the XDP program: ", net.near)),
        "{text}"
    );
    for part in ["Operation not permitted", "CAP_NET_ADMIN", "CAP_BPF"] {
        assert!(text.contains(part), "{text}");
    }
    assert_free(&net);
}

#[test]
fn no_right_to_open_a_socket() {
    let Some(net) = Net::new() else { return };
    let mut child = child::start("no-raw", &net.near);
    let text = child::line(&mut child);
    assert!(child.wait().unwrap().success());
    let start = format!("queue 0 of {}: cannot create an AF_XDP socket: ", net.near);
    assert!(
        text.starts_with(&start) && text.contains("CAP_NET_RAW"),
        "{text}"
    );
    assert_free(&net);
}

#[test]
fn the_patience_with_a_busy_queue_ends() {
    let Some(net) = Net::new() else { return };
    let (port, _other) = open(&config(&net.near));
    drop(port);
    let start = std::time::Instant::now();
    let text = refusal(&config(&net.near));
    assert!(start.elapsed() >= Duration::from_millis(2900), "{text}");
    assert!(text.contains("ss --xdp -p"), "{text}");
}
