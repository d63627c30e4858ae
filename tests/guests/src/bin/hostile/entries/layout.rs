//! Rings and features that make no sense: 9, 10, 25, 26, 34.

use guest::{
    mmio::register,
    net::{CTRL_VQ, EVENT_IDX, MQ, VERSION_1},
    ring::Rings,
};

use super::Must;
use crate::rig::{NEEDED, Rig, SIZE};

/// Registers of a queue's parts.
const PARTS: [u64; 3] = [
    register::QUEUE_DESC,
    register::QUEUE_DRIVER,
    register::QUEUE_DEVICE,
];
/// VIRTIO_NET_F_MRG_RXBUF, VIRTIO_F_INDIRECT_DESC.
const MERGEABLE: u64 = 1 << 15;
const INDIRECT_DESC: u64 = 1 << 28;

/// Sets the queues up, but the first transmit queue with one part elsewhere, and begins.
fn start_with(rig: &mut Rig, part: u64, address: u64) {
    if !rig.negotiate(rig.offered) {
        rig.fail("the card refuses what it offers");
    }
    rig.set_queues_up(rig.offered);
    let registers = rig.registers;
    registers.write(register::QUEUE_SEL, 1);
    registers.write(register::QUEUE_READY, 0);
    registers.write_address(part, address);
    registers.write(register::QUEUE_READY, 1);
    rig.driver_ok();
}

/// 9
pub(super) fn misplaced(rig: &mut Rig, way: u16) -> Option<Must> {
    let [desc, avail, used] = PARTS;
    let [_, tx, ..] = rig.rings;
    let Rings { descriptors, .. } = tx;
    let table = descriptors.address();
    let places = [
        (desc, table + 8),
        (avail, tx.avail.address() + 1),
        (used, tx.used.address() + 2),
        (desc, 0xfeb0_0000),
        (avail, 1 << 40),
        (used, rig.registers.base()),
        (desc, u64::MAX - 15),
        (avail, u64::MAX - 1),
        (used, u64::MAX - 3),
        (avail, table),
        (used, table),
        (used, tx.avail.address() & !3),
    ];
    let &(part, address) = places.get(usize::from(way))?;
    start_with(rig, part, address);
    Some(Must::Reset)
}

/// 10
pub(super) fn sizes(rig: &mut Rig, way: u16) -> Option<Must> {
    let registers = rig.registers;
    let most = registers.read(register::QUEUE_NUM_MAX);
    let impossible = [0, 3, most + 1, 2 * most, 0x1_0040, u32::MAX];
    let running = match way {
        // Between FEATURES_OK and DRIVER_OK, and then while it works.
        0 => false,
        1 => true,
        _ => return None,
    };
    if !running {
        if !rig.negotiate(rig.offered) {
            rig.fail("the card refuses what it offers");
        }
        for queue in 0..2 {
            registers.write(register::QUEUE_SEL, queue);
            registers.write(register::QUEUE_NUM, u32::from(SIZE));
            for size in impossible {
                registers.write(register::QUEUE_NUM, size);
            }
        }
        rig.set_queues_up(rig.offered);
        rig.driver_ok();
        rig.post_buffers();
        return Some(Must::GoOn);
    }
    for queue in 0..2 {
        registers.write(register::QUEUE_SEL, queue);
        for size in impossible.into_iter().chain([8]) {
            registers.write(register::QUEUE_NUM, size);
        }
        for part in PARTS {
            registers.write_address(part, 0xdead_0000);
        }
        registers.write(register::QUEUE_READY, 0);
    }
    Some(Must::GoOn)
}

/// HOST_TSO4, HOST_TSO6 and HOST_USO; GUEST_TSO4, GUEST_TSO6, GUEST_USO4 and GUEST_USO6 (virtio 1.3, 5.1.3).
const SEGMENTATION: u64 = 1 << 11 | 1 << 12 | 1 << 56;
const RECEIVE_SEGMENTATION: u64 = 1 << 7 | 1 << 8 | 1 << 54 | 1 << 55;

/// 25
pub(super) fn features(rig: &mut Rig, way: u16) -> Option<Must> {
    let offered = rig.offered;
    let without = |bits: u64| offered & !bits;
    let sets = [
        u64::MAX,
        0,
        without(VERSION_1),
        offered | 1 << 35,
        offered | 1 << 60,
        offered | 1 << 34,
        // What commands need is gone.
        without(CTRL_VQ),
        // Segmentation without checksums (bit 0), receive segmentation without those (bit 1).
        without(1),
        without(2),
    ];
    let &features = sets.get(usize::from(way))?;
    // A card without segmentation can do without checksums.
    let is_possible = match way {
        7 => offered & SEGMENTATION == 0,
        8 => offered & RECEIVE_SEGMENTATION == 0,
        _ => false,
    };
    if rig.negotiate(features) && !is_possible {
        rig.fail("the card takes features that are impossible");
    }
    // It is not to begin.
    rig.driver_ok();
    rig.first.tx.kick();
    Some(Must::Whatever)
}

/// 26
pub(super) fn feature_sets(rig: &mut Rig, way: u16) -> Option<Must> {
    const OPTIONAL: [u64; 4] = [MERGEABLE, EVENT_IDX, INDIRECT_DESC, CTRL_VQ];
    if way >= 1 << OPTIONAL.len() {
        return None;
    }
    let chosen = (0..).zip(OPTIONAL).filter(|(i, _)| way >> i & 1 == 1);
    let features = chosen.fold(NEEDED, |all, (_, feature)| all | feature);
    rig.start_with(features);
    rig.post_buffers();
    Some(Must::GoOn)
}

/// 34
pub(super) fn half_configured(rig: &mut Rig, way: u16) -> Option<Must> {
    if way < 3 {
        // virtio-net can't do without a transmit queue: one part was never told.
        let part = PARTS.get(usize::from(way))?;
        start_with(rig, *part, 0);
        return Some(Must::Reset);
    }
    if way > 4 || rig.offered & MQ == 0 {
        return None;
    }
    // The second pair is one of the further ones that nobody needs.
    if !rig.negotiate(rig.offered) {
        rig.fail("the card refuses what it offers");
    }
    rig.set_queues_up(rig.offered);
    let registers = rig.registers;
    registers.write(register::QUEUE_SEL, u32::from(way) - 1);
    registers.write(register::QUEUE_READY, 0);
    rig.driver_ok();
    rig.second = None;
    rig.post_buffers();
    if rig.command(&[4, 0, 2, 0]) == 0 {
        rig.fail("the card uses a pair that is half configured");
    }
    Some(Must::GoOn)
}
