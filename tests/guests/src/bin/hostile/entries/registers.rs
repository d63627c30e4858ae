//! Registers that are used as none should: 15, 29, 30, 32.

use guest::{
    mmio::{register, status},
    odd::{self, Width},
};

use super::Must;
use crate::rig::Rig;

/// 15
pub(super) fn kicks(rig: &mut Rig, way: u16) -> Option<Must> {
    let registers = rig.registers;
    match way {
        0 => {
            for _ in 0..500 {
                rig.first.tx.kick();
                rig.first.rx.kick();
                rig.control.kick();
            }
        }
        1 => {
            for queue in [7, 8, 100, 0xffff, 0x1_0000, 0x1_0001, u32::MAX] {
                for _ in 0..20 {
                    registers.write(register::QUEUE_NOTIFY, queue);
                }
            }
        }
        2 => {
            registers.write(register::STATUS, 0);
            for queue in 0..5 {
                registers.write(register::QUEUE_NOTIFY, queue);
            }
            rig.start();
        }
        _ => return None,
    }
    Some(Must::GoOn)
}

/// 29
pub(super) fn odd(rig: &mut Rig, way: u16) -> Option<Must> {
    let base = rig.registers.base();
    let places = (0..0x200).step_by(3).chain((0..0x120).step_by(8));
    let places = places.chain([0xff8, 0xffc, 0xffe, 0xfff]);
    for at in places {
        for width in Width::ALL {
            // What a driver does is not odd, and neither is what ends beyond the window.
            let aligned = width == Width::Long && at % 4 == 0;
            let bytes = 1 << width as u64;
            if aligned || at + bytes > 0x1000 {
                continue;
            }
            match way {
                0 => {
                    let value = odd::read(base + at, width);
                    if at + bytes <= register::CONFIG && value != 0 {
                        rig.fail("an odd access reads something");
                    }
                }
                1 => odd::write(base + at, width, u64::MAX),
                2 => odd::write(base + at, width, 0),
                _ => return None,
            }
        }
    }
    Some(Must::GoOn)
}

/// 30
pub(super) fn queues(rig: &mut Rig, way: u16) -> Option<Must> {
    let registers = rig.registers;
    let none = [100, 0xffff, 0x1_0000, u32::MAX];
    let &queue = none.get(usize::from(way))?;
    registers.write(register::QUEUE_SEL, queue);
    for offset in [register::QUEUE_NUM_MAX, register::QUEUE_READY] {
        if registers.read(offset) != 0 {
            rig.fail("a queue that is none has something");
        }
    }
    registers.write(register::QUEUE_NUM, 8);
    registers.write(register::QUEUE_READY, 1);
    for part in [
        register::QUEUE_DESC,
        register::QUEUE_DRIVER,
        register::QUEUE_DEVICE,
    ] {
        registers.write_address(part, u64::MAX);
    }
    Some(Must::GoOn)
}

/// 32
pub(super) fn status_bits(rig: &mut Rig, way: u16) -> Option<Must> {
    let registers = rig.registers;
    let write = |value| registers.write(register::STATUS, value);
    let running = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
    match way {
        // Nothing of this is a reset: the card goes on.
        0 => {
            for value in [running, running, 1, 2, 4, 8, 11, 0x100, 0x8000_0000, 0x30] {
                write(value);
            }
            return Some(Must::GoOn);
        }
        1 => {
            write(0);
            for value in [4, 2, 8, 14, 64, 0x100, 5, 13, 7] {
                write(value);
            }
        }
        2 => write(running | 128),
        3 => {
            let mut state = 0x2545_f491_u32;
            for _ in 0..100 {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                write(state & 0xff);
            }
        }
        _ => return None,
    }
    Some(Must::Whatever)
}
