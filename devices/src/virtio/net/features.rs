//! Feature bits of the control plane (virtio 1.2, 5.1.3), and which of them need which.
//!
//! Not offered: VIRTIO_NET_F_RSS and VIRTIO_NET_F_HASH_REPORT. The interface spreads frames over its
//! queues by its own hash before we see them, and each queue belongs to one io-thread. Another
//! choice by the driver would mean handing frames from thread to thread, and a hash to compute for
//! each of them, to undo what the card did for nothing; where the card's own spreading is to be
//! another one, `ethtool -X` and `ethtool -N` on the host set it.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_NOTF_COAL, VIRTIO_NET_F_SPEED_DUPLEX, VIRTIO_NET_F_STATUS,
    VIRTIO_NET_F_VQ_NOTF_COAL,
};

/// The configuration space has the card's address.
pub(super) const MAC: u64 = 1 << VIRTIO_NET_F_MAC;
/// The configuration space has the state of the link.
pub(super) const STATUS: u64 = 1 << VIRTIO_NET_F_STATUS;
/// The configuration space has the MTU.
pub(super) const MTU: u64 = 1 << VIRTIO_NET_F_MTU;
/// The configuration space has the speed of the link.
pub(super) const SPEED_DUPLEX: u64 = 1 << VIRTIO_NET_F_SPEED_DUPLEX;
/// There is a control queue.
pub(super) const CTRL_VQ: u64 = 1 << VIRTIO_NET_F_CTRL_VQ;
/// The driver can choose which frames it receives, by their addresses.
pub(super) const CTRL_RX: u64 = 1 << VIRTIO_NET_F_CTRL_RX;
/// And in some more ways.
pub(super) const CTRL_RX_EXTRA: u64 = 1 << VIRTIO_NET_F_CTRL_RX_EXTRA;
/// The driver can choose which VLANs it receives.
pub(super) const CTRL_VLAN: u64 = 1 << VIRTIO_NET_F_CTRL_VLAN;
/// The driver can change the card's address.
pub(super) const CTRL_MAC_ADDR: u64 = 1 << VIRTIO_NET_F_CTRL_MAC_ADDR;
/// The driver announces itself on the wire when it is asked to.
pub(super) const GUEST_ANNOUNCE: u64 = 1 << VIRTIO_NET_F_GUEST_ANNOUNCE;
/// The driver can switch receive offloads on and off.
pub(super) const CTRL_GUEST_OFFLOADS: u64 = 1 << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
/// The driver can use several queue pairs.
pub(super) const MQ: u64 = 1 << VIRTIO_NET_F_MQ;
/// The driver can have interrupts put off.
pub(super) const NOTF_COAL: u64 = 1 << VIRTIO_NET_F_NOTF_COAL;
/// The same for each queue apart.
pub(super) const VQ_NOTF_COAL: u64 = 1 << VIRTIO_NET_F_VQ_NOTF_COAL;

/// The driver can ask for statistics.
pub(super) const DEVICE_STATS: u64 = 1 << 50;

/// What the control queue is there for (5.1.3.1: each of these requires it).
const COMMANDS: u64 = CTRL_GUEST_OFFLOADS
    | CTRL_RX
    | CTRL_RX_EXTRA
    | CTRL_VLAN
    | CTRL_MAC_ADDR
    | GUEST_ANNOUNCE
    | MQ
    | NOTF_COAL
    | VQ_NOTF_COAL
    | DEVICE_STATS;

/// The control plane of a card with that many queue pairs.
pub(super) const fn control_plane(pairs: usize) -> u64 {
    let mq = if pairs > 1 { 0 } else { MQ };
    CTRL_VQ | COMMANDS & !mq
}

/// Whether each feature has what it requires (5.1.3.1).
pub(super) const fn are_complete(features: u64) -> bool {
    features & CTRL_VQ != 0 || features & COMMANDS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_need_a_control_queue() {
        assert!(are_complete(0) && are_complete(MAC | STATUS | MTU) && are_complete(CTRL_VQ));
        for bit in (0..64).map(|bit| 1 << bit) {
            assert_eq!(are_complete(bit), COMMANDS & bit == 0, "{bit:#x}");
            assert!(are_complete(bit | CTRL_VQ));
        }
    }

    #[test]
    fn one_pair_has_no_use_for_mq() {
        assert_eq!(control_plane(1) & MQ, 0);
        assert_eq!(control_plane(2), control_plane(1) | MQ);
        assert!(are_complete(control_plane(2)));
    }
}
