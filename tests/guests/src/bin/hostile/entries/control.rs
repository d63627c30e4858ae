//! Commands that are none, and those that are: 27.

use guest::{net::MQ, ring::WRITE};

use super::Must;
use crate::rig::Rig;

/// VIRTIO_NET_OK and VIRTIO_NET_ERR.
const OK: u8 = 0;
const ERR: u8 = 1;

fn must_be(rig: &mut Rig, command: &[u8], answer: u8) {
    if rig.command(command) != answer {
        rig.fail("a command has the wrong answer");
    }
}

/// 27
pub(super) fn commands(rig: &mut Rig, way: u16) -> Option<Must> {
    match way {
        0 => {
            for class in 0..=255 {
                // 1: what no command of these classes has, or what there are no such of.
                must_be(rig, &[class, 0xff, 1, 0], ERR);
            }
            for command in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0, 1, 0, 0]] {
                must_be(rig, command, ERR);
            }
            must_be(rig, &[0; 4096], ERR);
        }
        1 => {
            // Tables of addresses that say they are huge, or end early.
            must_be(rig, &[1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], ERR);
            must_be(rig, &[1, 0, 1, 0, 0, 0, 2, 0, 0], ERR);
            must_be(rig, &[1, 0], ERR);
        }
        2 => {
            // Without room for an answer, with an answer that can't be written, with nothing to read.
            let memory = rig.command;
            memory.write(0, &[4, 0, 1, 0]);
            let address = memory.address();
            rig.control.describe(0, address, 4, false);
            rig.control.describe(1, address + 64, 1, true);
            for id in [0, 1] {
                rig.control.post(id);
                rig.control.publish();
                let mut watch = rig.watch();
                while rig.control.take().is_none() {
                    watch.turn(rig, "a chain of no command does not come back");
                }
            }
        }
        3 => {
            let address = rig.command.address();
            rig.control.set_descriptor(0, address, 4, WRITE | 1, 1);
            rig.control.describe(1, address, 4, false);
            rig.control.post(0);
            rig.control.publish();
            return Some(Must::Reset);
        }
        4 => return pairs(rig),
        _ => return None,
    }
    Some(Must::GoOn)
}

/// Numbers of pairs, possible and not, with frames between the changes.
fn pairs(rig: &mut Rig) -> Option<Must> {
    if rig.offered & MQ == 0 {
        return None;
    }
    for count in [0, 3, 0x100, 0x8000, 0xffff_u16] {
        let [low, high] = count.to_le_bytes();
        must_be(rig, &[4, 0, low, high], ERR);
    }
    for count in [2, 1, 2, 2, 1] {
        must_be(rig, &[4, 0, count, 0], OK);
        rig.exchange();
    }
    Some(Must::GoOn)
}
