//! Rules of the rings that are broken: 1 to 8, 12, 36.

use core::sync::atomic::Ordering;

use guest::ring::{DESCRIPTOR, INDIRECT, NEXT, WRITE};

use super::Must;
use crate::{
    exchange::length,
    packet,
    rig::{BUFFER, Rig, SIZE},
};

/// A descriptor: address, length, flags, next.
type Descriptor = (u64, u32, u16, u16);

/// Offers descriptor 0, which is this one.
fn offer(rig: &mut Rig, (address, len, flags, next): Descriptor) -> Must {
    rig.first.tx.set_descriptor(0, address, len, flags, next);
    rig.offer(0);
    Must::Reset
}

/// The same as the only receive buffer.
fn offer_receive(rig: &mut Rig, (address, len, flags, next): Descriptor) -> Must {
    rig.start_with(rig.offered);
    let rx = &mut rig.first.rx;
    rx.set_descriptor(0, address, len, flags, next);
    rx.post(0);
    rx.publish();
    Must::ResetOnReceive
}

/// Writes entry `at` of the indirect table.
pub(super) fn set_table(rig: &Rig, at: u16, (address, len, flags, next): Descriptor) {
    let at = usize::from(at) * DESCRIPTOR;
    rig.table.u64(at).store(address, Ordering::Relaxed);
    let rest = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
    rig.table.u64(at + 8).store(rest, Ordering::Relaxed);
}

/// Offers a table of that many bytes.
fn offer_table(rig: &mut Rig, len: u32, flags: u16) -> Must {
    let address = rig.table.address();
    offer(rig, (address, len, INDIRECT | flags, 1))
}

/// 1
pub(super) fn loops(rig: &mut Rig, way: u16) -> Option<Must> {
    let address = rig.send.address();
    Some(match way {
        0 => offer(rig, (address, 1, NEXT, 0)),
        1 => {
            rig.first.tx.set_descriptor(1, address, 0, NEXT, 0);
            offer(rig, (address, 1, NEXT, 1))
        }
        2 => {
            for i in 0..=SIZE {
                set_table(rig, i, (address, 1, NEXT, i + 1));
            }
            offer_table(rig, length(DESCRIPTOR) * u32::from(SIZE + 1), 0)
        }
        3 => {
            for i in 0..SIZE {
                rig.first
                    .tx
                    .set_descriptor(i, address, 1, NEXT, (i + 1) % SIZE);
            }
            rig.offer(0);
            Must::Reset
        }
        4 => offer_receive(rig, (rig.receive[0].address(), 1, NEXT | WRITE, 0)),
        5 => {
            rig.control.set_descriptor(3, address, 1, NEXT, 3);
            rig.control.post(3);
            rig.control.publish();
            Must::Reset
        }
        _ => return None,
    })
}

/// 2
pub(super) fn indices(rig: &mut Rig, way: u16) -> Option<Must> {
    // So that the indices are at 0.
    rig.start();
    match way {
        0 => rig.first.tx.show_index(SIZE + 1),
        1 => rig.first.tx.show_index(0x8000),
        2 => rig.first.tx.show_index(0xffff),
        3 => {
            rig.send_one(60);
            rig.first.tx.show_index(0);
        }
        4 => rig.control.show_index(65),
        5 => {
            rig.first.rx.show_index(0x8000);
            return Some(Must::ResetOnReceive);
        }
        _ => return None,
    }
    Some(Must::Reset)
}

/// 3
pub(super) fn outside_the_table(rig: &mut Rig, way: u16) -> Option<Must> {
    let address = rig.send.address();
    Some(match way {
        0 | 1 => {
            rig.offer(if way == 0 { SIZE } else { 0xffff });
            Must::Reset
        }
        2 => offer(rig, (address, 1, NEXT, SIZE)),
        3 => offer(rig, (address, 1, NEXT, 0xffff)),
        4 => offer_receive(rig, (rig.receive[0].address(), 64, NEXT | WRITE, SIZE)),
        _ => return None,
    })
}

/// 4
pub(super) fn tables(rig: &mut Rig, way: u16) -> Option<Must> {
    let address = rig.send.address();
    set_table(rig, 0, (address, 64, 0, 0));
    Some(match way {
        0 => {
            set_table(rig, 0, (rig.table.address(), 16, INDIRECT, 0));
            offer_table(rig, 16, 0)
        }
        1 => offer_table(rig, 0, 0),
        2 => offer_table(rig, 17, 0),
        3 => {
            rig.first.tx.set_descriptor(1, address, 64, 0, 0);
            offer_table(rig, 16, NEXT)
        }
        4 => {
            set_table(rig, 0, (address, 64, NEXT, 1));
            offer_table(rig, 16, 0)
        }
        5 => offer(rig, (NOWHERE, 16, INDIRECT, 0)),
        6 => offer(rig, (u64::MAX - 7, 32, INDIRECT, 0)),
        7 => {
            // Far longer than RAM; all that is used of it is there.
            offer_table(rig, u32::MAX - 15, 0);
            Must::Whatever
        }
        _ => return None,
    })
}

/// 6
pub(super) fn lengths(rig: &mut Rig, way: u16) -> Option<Must> {
    let address = rig.send.address();
    Some(match way {
        0 => {
            // Nothing is nowhere out of place.
            rig.first.tx.set_descriptor(1, NOWHERE, 0, 0, 0);
            offer(rig, (address, 0, NEXT, 1));
            rig.wait_sent();
            Must::GoOn
        }
        1 => offer(rig, (address, u32::MAX, 0, 0)),
        2 => {
            rig.first.tx.set_descriptor(1, address, u32::MAX, 0, 0);
            offer(rig, (address, 16, NEXT, 1))
        }
        3 => {
            for i in 0..64 {
                set_table(rig, i, (address, 0x0400_0000, NEXT, i + 1));
            }
            set_table(rig, 64, (address, 64, 0, 0));
            offer_table(rig, 65 * length(DESCRIPTOR), 0)
        }
        4 => offer_receive(rig, (rig.receive[0].address(), u32::MAX, WRITE, 0)),
        _ => return None,
    })
}

/// Where no machine has RAM: under the registers of the interrupt controllers.
const NOWHERE: u64 = 0xfeb0_0000;

/// 7
pub(super) fn outside_ram(rig: &mut Rig, way: u16) -> Option<Must> {
    const PLACES: [u64; 8] = [
        NOWHERE,
        0xfee0_0000,
        0xffff_fff0,
        1 << 40,
        1 << 52,
        1 << 63,
        u64::MAX - 63,
        u64::MAX,
    ];
    let places = PLACES.len();
    let way = usize::from(way);
    if let Some(&address) = PLACES.get(way) {
        return Some(offer(rig, (address, 64, 0, 0)));
    }
    let &address = PLACES.get(way - places)?;
    Some(offer_receive(rig, (address, 2048, WRITE, 0)))
}

/// 8
pub(super) fn directions(rig: &mut Rig, way: u16) -> Option<Must> {
    let address = rig.send.address();
    Some(match way {
        0 => offer(rig, (address, 64, WRITE, 0)),
        1 => {
            rig.first.tx.set_descriptor(1, address, 64, WRITE, 0);
            offer(rig, (address, 64, NEXT, 1))
        }
        2 => {
            rig.first.tx.set_descriptor(1, address, 64, 0, 0);
            offer(rig, (address, 64, NEXT | WRITE, 1))
        }
        3 => {
            let memory = rig.receive[0];
            // Once it is no receive buffer any more.
            rig.start_with(rig.offered);
            memory.fill(0, BUFFER, packet::FILL);
            offer_receive(rig, (memory.address(), length(BUFFER), 0, 0));
            rig.provoke_until_broken();
            let byte = |i| memory.u8(i).load(Ordering::Relaxed);
            if (0..BUFFER).any(|i| byte(i) != packet::FILL) {
                rig.fail("memory that may only be read was written");
            }
            Must::Reset
        }
        _ => return None,
    })
}

/// 12: one head, offered as often as the ring has entries, and once more.
pub(super) fn too_many(rig: &mut Rig, way: u16) -> Option<Must> {
    packet::write_plain(&rig.send, rig.mac, 60);
    let (address, tx) = (rig.send.address(), &mut rig.first.tx);
    tx.describe(0, address, 72, false);
    let count = match way {
        0 => SIZE,
        1 => SIZE + 1,
        _ => return None,
    };
    for _ in 0..count {
        tx.post(0);
    }
    tx.publish();
    if count > SIZE {
        return Some(Must::Reset);
    }
    rig.wait_sent();
    rig.calm_down();
    Some(Must::GoOn)
}

/// 36
pub(super) fn registers(rig: &mut Rig, way: u16) -> Option<Must> {
    let address = rig.registers.base();
    Some(match way {
        0 => offer(rig, (address, 64, 0, 0)),
        1 => offer_receive(rig, (address, 2048, WRITE, 0)),
        2 => offer(rig, (address, 64, INDIRECT, 0)),
        _ => return None,
    })
}
