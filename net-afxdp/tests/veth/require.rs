//! What is required, and what is not reached.

use net_afxdp::{Port, PortConfig, Require};

use crate::{
    foreign::carry_traffic,
    net::{Net, ip, kernel_is_new},
    traffic::config,
};

fn open(ifname: &str, require: Require) -> Result<Port, String> {
    Port::open(&PortConfig {
        frames: 64,
        require,
        ..config(ifname)
    })
    .map_err(|error| error.to_string())
}

#[test]
fn native_mode_is_reached_on_veth() {
    let Some(net) = Net::new() else { return };
    let mut port = open(&net.near, Require::Native).unwrap();
    carry_traffic(&net, &mut port.take_queues());
}

#[test]
fn native_mode_is_not_reached_on_loopback() {
    let Some(_net) = Net::new() else { return };
    ip("link set dev lo up");
    let text = open("lo", Require::Native).unwrap_err();
    assert!(
        text.starts_with("lo: native is required, but only skb mode can be reached: attaching"),
        "{text}"
    );
    // In the stack frames may come that are longer than any MTU.
    ip("link set dev lo mtu 1500");
    let mut port = open("lo", Require::Any).unwrap();
    assert_eq!(port.take_queues()[0].multi_buffer(), kernel_is_new());
}

#[test]
fn zero_copy_is_not_reached_on_veth_and_nothing_stays() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let text = open(&net.near, Require::ZeroCopy).unwrap_err();
    let start = format!(
        "queue 0 of {}: zero-copy is required, but was refused: Operation not supported",
        net.near
    );
    assert!(
        text.starts_with(&start) && text.contains("What can be reached is copy mode"),
        "{text}"
    );
    assert_eq!(net.interface().xdp_program(), None);
    let mut port = open(&net.near, Require::Any).unwrap();
    carry_traffic(&net, &mut port.take_queues());
}

#[test]
fn forced_copies_are_copies() {
    let Some(net) = Net::new() else { return };
    let mut port = Port::open(&PortConfig {
        frames: 64,
        force_copy: true,
        require: Require::Native,
        ..config(&net.near)
    })
    .unwrap();
    let mut queues = port.take_queues();
    assert!(!queues[0].zero_copy());
    carry_traffic(&net, &mut queues);
}
