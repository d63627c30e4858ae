//! What changes while the device works, and what does not end: 5, 11, 13, 14, 22, 35.

use core::sync::atomic::Ordering;

use guest::{
    mmio::register,
    net::HEADER,
    ring::{DESCRIPTOR, INDEX, INDIRECT, NEXT},
};

use super::{Must, rings::set_table};
use crate::{
    exchange::length,
    packet,
    rig::{Rig, SIZE},
};

/// Chains that are offered at a time, and how often.
const BATCH: u16 = 64;
const ROUNDS: usize = 20;

/// Takes what the device is done with; true if that is all, or the device has given up.
fn is_over(rig: &mut Rig, may_break: bool) -> bool {
    while rig.first.tx.take().is_some() {}
    rig.first.tx.outstanding() == 0 || (may_break && rig.is_broken())
}

/// 5
pub(super) fn changing_table(rig: &mut Rig, way: u16) -> Option<Must> {
    packet::write_plain(&rig.send, rig.mac, 60);
    let (frame, table) = (rig.send.address(), rig.table.address());
    // The second entry, as it is at first, and as it changes.
    let right = (frame + 12, 60, 0, 0);
    let (other, may_break) = match way {
        0 => ((frame + 12, 40, 0, 0), false),
        1 => ((1 << 40, 60, 0, 0), true),
        // Longer by the third entry, which is of known bytes, too.
        2 => ((frame + 12, 60, NEXT, 2), false),
        3 => ((frame + 12, u32::MAX, 0xffff, 0xffff), true),
        _ => return None,
    };
    set_table(rig, 0, (frame, length(HEADER), NEXT, 1));
    set_table(rig, 1, right);
    set_table(rig, 2, (frame + 26, 46, 0, 0));
    let tx = &mut rig.first.tx;
    tx.set_descriptor(0, table, 3 * length(DESCRIPTOR), INDIRECT, 0);
    for _ in 0..ROUNDS {
        for _ in 0..BATCH {
            rig.first.tx.post(0);
        }
        rig.first.tx.publish();
        let mut watch = rig.watch();
        while !is_over(rig, may_break) {
            for _ in 0..64 {
                set_table(rig, 1, other);
                set_table(rig, 1, right);
            }
            watch.turn(rig, "chains with a changing table do not come back");
        }
        if may_break && rig.is_broken() {
            break;
        }
    }
    if may_break {
        return Some(Must::Whatever);
    }
    rig.calm_down();
    Some(Must::GoOn)
}

/// 22
pub(super) fn changing_header(rig: &mut Rig, way: u16) -> Option<Must> {
    // Flags, kind, hdr_len; size and checksum.
    let len = packet::write_tcp(&rig.send, rig.mac, 2000);
    packet::Header::TCP.write(&rig.send);
    let (at, values): (usize, [u64; 2]) = match way {
        0 => (0, [0x03e8_0036_0101, 0xffff_ffff_ffff]),
        1 => (0, [0x03e8_0036_0101, 0]),
        // The IPv4 header's and the TCP header's lengths, with what is around them.
        2 => (24, [0x40_0000_0000_0008, u64::MAX]),
        _ => return None,
    };
    let cell = rig.send.u64(at).load(Ordering::Relaxed);
    let values = if way == 2 { [cell, values[1]] } else { values };
    let address = rig.send.address();
    rig.first
        .tx
        .describe(0, address, length(HEADER + len), false);
    for _ in 0..ROUNDS {
        for _ in 0..BATCH {
            rig.first.tx.post(0);
        }
        rig.first.tx.publish();
        let mut watch = rig.watch();
        while !is_over(rig, false) {
            for _ in 0..64 {
                for value in values {
                    rig.send.u64(at).store(value, Ordering::Relaxed);
                }
            }
            watch.turn(rig, "chains with a changing header do not come back");
        }
    }
    rig.calm_down();
    Some(Must::GoOn)
}

/// 11: a transmit queue that is always full; commands and registers are served meanwhile.
pub(super) fn endless(rig: &mut Rig, way: u16) -> Option<Must> {
    if way > 0 {
        return None;
    }
    let (address, mac) = (rig.send.address(), rig.mac);
    // Too short for a frame, so that the wire is no brake.
    rig.first.tx.describe(0, address, 4, false);
    let duration = rig.options.kilohertz.saturating_mul(200);
    let flood = rig.watch();
    let mut turns = 0_u32;
    while flood.elapsed() < duration {
        while rig.first.tx.take().is_some() {}
        while rig.first.tx.outstanding() < SIZE {
            rig.first.tx.post(0);
        }
        rig.first.tx.publish();
        turns += 1;
        if turns.is_multiple_of(16) {
            let read: [u8; 6] = core::array::from_fn(|i| rig.registers.config(i as u64));
            if read != mac || rig.command(&[4]) != 1 {
                rig.fail("the registers or the control queue are not served");
            }
        }
    }
    rig.wait_sent();
    Some(Must::GoOn)
}

/// 13: an index that is half written when the device looks.
pub(super) fn torn_index(rig: &mut Rig, way: u16) -> Option<Must> {
    let (first, second) = match way {
        0 => (INDEX, INDEX + 1),
        1 => (INDEX + 1, INDEX),
        _ => return None,
    };
    // So that the index is at 0.
    rig.start();
    let address = rig.send.address();
    for id in 0..SIZE {
        rig.first.tx.describe(id, address, 4, false);
    }
    for _ in 0..255 {
        rig.first.tx.post(0);
    }
    rig.first.tx.publish();
    rig.wait_sent();
    // From 0x00ff to 0x0100.
    let [_, tx, ..] = rig.rings;
    let bytes = 0x100_u16.to_le_bytes();
    for at in [first, second] {
        let byte = bytes.get(at - INDEX).copied().unwrap_or(0);
        tx.avail.u8(at).store(byte, Ordering::Release);
        rig.first.tx.kick();
        let wait = rig.watch();
        while wait.elapsed() < rig.options.kilohertz {
            core::hint::spin_loop();
        }
    }
    Some(Must::Whatever)
}

/// 14
pub(super) fn wrap(rig: &mut Rig, way: u16) -> Option<Must> {
    if way > 0 {
        return None;
    }
    let address = rig.send.address();
    rig.first.tx.describe(0, address, 4, false);
    let mut event = 1_u16;
    for _ in 0..66_000 / usize::from(SIZE) {
        event = event.wrapping_mul(25_173).wrapping_add(13_849);
        rig.first.tx.ask_for_interrupt(event);
        for _ in 0..SIZE {
            rig.first.tx.post(0);
        }
        rig.first.tx.publish();
        rig.wait_sent();
    }
    Some(Must::GoOn)
}

/// 35: resets while frames go out and come in, of the device and of its queues.
pub(super) fn resets(rig: &mut Rig, way: u16) -> Option<Must> {
    for round in 0..50 {
        packet::write_plain(&rig.send, rig.mac, 60);
        let address = rig.send.address();
        rig.first.tx.describe(0, address, 72, false);
        for _ in 0..round {
            rig.first.tx.post(0);
        }
        rig.first.tx.publish();
        match way {
            0 => rig.registers.write(register::STATUS, 0),
            1 => {
                rig.reset_queue(0);
                rig.reset_queue(1);
            }
            _ => return None,
        }
        let [rx, tx, ..] = rig.rings;
        let now = || [rx, tx].map(|it| it.used.u16(INDEX).load(Ordering::Acquire));
        let before = now();
        let wait = rig.watch();
        while wait.elapsed() < rig.options.kilohertz / 4 {
            core::hint::spin_loop();
        }
        if now() != before {
            rig.fail("something came back after a reset");
        }
        match way {
            0 => rig.start(),
            _ => rig.enable_first_pair(),
        }
    }
    Some(Must::GoOn)
}
