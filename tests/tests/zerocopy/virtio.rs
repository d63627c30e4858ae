//! Cards of another driver: virtio-net, which the kernel of a host that is itself a virtual machine has.

use std::os::fd::AsFd;

use net_afxdp::{AttachMode, PortConfig, Queue, Require};
use ringwire_tests::{Card, Guest, Options, Wire};
use rustix::net::{sockopt::xdp_options, xdp::XdpOptionsFlags};

use crate::{
    guest::{boot, end, streams},
    port::{assert_all_well, open, transfer},
};

fn zero_copy() -> PortConfig {
    PortConfig {
        require: Require::ZeroCopy,
        ..PortConfig::default()
    }
}

/// What the kernel says of the socket itself.
fn kernel_says_zero_copy(queue: &Queue) -> bool {
    xdp_options(queue.as_fd())
        .unwrap()
        .contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY)
}

#[test]
fn frames_arrive_whole_both_ways_on_virtio_net() {
    let wire = Wire::of(Card::VirtioNet);
    let (near, mut near_queues) = open(&wire, true, zero_copy());
    let (far, mut far_queues) = open(&wire, false, zero_copy());
    wire.wait_for_carrier();
    assert_eq!(
        (near.mode(), far.mode()),
        (AttachMode::Native, AttachMode::Native)
    );
    for queue in near_queues.iter().chain(&far_queues) {
        assert!(queue.zero_copy(), "queue {} copies", queue.id());
        assert!(
            kernel_says_zero_copy(queue),
            "the kernel copies on queue {}",
            queue.id()
        );
    }
    transfer(&mut near_queues, &mut far_queues, 61);
    transfer(&mut far_queues, &mut near_queues, 62);
    assert_all_well(near_queues.iter_mut().chain(&mut far_queues));
}

#[test]
fn a_forced_copy_on_virtio_net_is_one_for_the_kernel_too() {
    let wire = Wire::of(Card::VirtioNet);
    let config = PortConfig {
        force_copy: true,
        ..PortConfig::default()
    };
    let (port, queues) = open(&wire, true, config);
    assert_eq!(port.mode(), AttachMode::Native);
    assert!(!queues[0].zero_copy() && !kernel_says_zero_copy(&queues[0]));
}

#[test]
fn a_guest_on_virtio_net() {
    let wire = Wire::of(Card::VirtioNet);
    let mut guest = boot(&wire, ",require=zerocopy");
    for size in [0, 1, 56, 1472] {
        let text = guest.ok(&format!("ping -q -c 3 -i 0.2 -s {size} {}", Wire::PEER));
        assert!(text.contains("3 packets received"), "-s {size}: {text}");
    }
    streams(&wire, &mut guest, 2_000_000);
    end(&wire, guest);
}

/// The kernel wakes no driver for a socket that prefers to poll, and this one's transmit side is not where its receive
/// side is polled.
#[test]
fn a_guest_that_polls_virtio_net() {
    let wire = Wire::of(Card::VirtioNet);
    let mut guest = boot(&wire, ",require=zerocopy,busy-poll=20");
    streams(&wire, &mut guest, 500_000);
    end(&wire, guest);
}

/// No driver that the lab has takes frames of several chunks in zero-copy mode: they are copied, unless zero-copy is
/// required, which limits the MTU.
#[test]
fn frames_of_several_chunks_on_virtio_net_are_copied() {
    let wire = Wire::of(Card::VirtioNet);
    wire.far(&format!("ip link set {} mtu 9000", Wire::PEER_IFNAME));
    wire.near(&format!("ip link set {} mtu 9000", Wire::IFNAME));
    let (port, queues) = open(&wire, true, PortConfig::default());
    assert_eq!((port.mode(), port.mtu()), (AttachMode::Native, 9000));
    assert!(!queues[0].zero_copy() && !kernel_says_zero_copy(&queues[0]));
    drop((port, queues));

    let mut guest = Guest::boot(Options::new().on(&wire));
    assert_eq!(guest.ok("cat /sys/class/net/eth0/mtu").trim(), "9000");
    let text = wire.far(&format!(
        "ping -q -c 3 -i 0.2 -M do -s 8972 {}",
        Wire::GUEST
    ));
    assert!(text.contains("3 received"), "{text}");
    streams(&wire, &mut guest, 2_000_000);
    end(&wire, guest);
}
