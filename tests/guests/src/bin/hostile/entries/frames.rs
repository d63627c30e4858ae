//! Frames and buffers of impossible lengths: 16, 23, 24, 28.

use guest::{
    frame::{self, Check},
    net::HEADER,
};

use super::Must;
use crate::{exchange::length, packet, rig::Rig};

/// 16
pub(super) fn headers(rig: &mut Rig, way: u16) -> Option<Must> {
    match way {
        0 => {
            packet::write_plain(&rig.send, rig.mac, 60);
            for len in 0..HEADER + 14 {
                rig.send_bytes(len);
            }
        }
        1 => {
            for cut in 1..HEADER + 60 {
                rig.exchange_cut(60, cut);
            }
        }
        _ => return None,
    }
    Some(Must::GoOn)
}

/// 23
pub(super) fn tiny_buffers(rig: &mut Rig, way: u16) -> Option<Must> {
    let lens = [0, 1, 5, 11];
    let &len = lens.get(usize::from(way))?;
    rig.start_with(rig.offered);
    let memory = rig.receive[0];
    for _ in 0..3 {
        let rx = &mut rig.first.rx;
        rx.describe(0, memory.address(), len, true);
        rx.post(0);
        rx.publish();
        let mut watch = rig.watch();
        let mut sent = rig.watch();
        rig.send_one(60);
        let written = loop {
            if let Some((_, written)) = rig.first.rx.take() {
                break written;
            }
            watch.turn(rig, "a buffer that is too small does not come back");
            let retry = rig.options.retry;
            if retry.is_some_and(|cycles| sent.elapsed() > cycles) {
                rig.send_one(60);
                sent = rig.watch();
            }
        };
        if written != 0 {
            rig.fail("something was written to a buffer that is too small");
        }
    }
    rig.post_buffers();
    Some(Must::GoOn)
}

/// 24: the longest frame in buffers of 100 bytes, of which there is first one, then more.
pub(super) fn few_buffers(rig: &mut Rig, way: u16) -> Option<Must> {
    const EACH: usize = 100;
    const SIZE: usize = 1514;
    // Where frames can get lost there is no telling which one is in the buffers.
    if way > 0 || rig.options.retry.is_some() {
        return None;
    }
    rig.start_with(rig.offered);
    let memory = rig.receive[0];
    let number = rig.send_one(SIZE);
    let needed = (HEADER + SIZE).div_ceil(EACH);
    for id in 0..needed {
        let wait = rig.watch();
        while wait.elapsed() < rig.options.kilohertz {
            if rig.first.rx.take().is_some() {
                rig.fail("a frame came in too few buffers");
            }
        }
        let at = id * EACH;
        let rx = &mut rig.first.rx;
        let id = u16::try_from(id).unwrap_or(0);
        rx.describe(id, memory.address() + at as u64, length(EACH), true);
        rx.post(id);
        rx.publish();
    }
    let mut watch = rig.watch();
    let mut taken = 0;
    while taken < needed {
        match rig.first.rx.take() {
            Some((id, _)) if usize::from(id) == taken => taken += 1,
            Some(_) => rig.fail("buffers come back out of order"),
            None => watch.turn(rig, "a frame does not come although there are buffers"),
        }
    }
    if frame::check(&memory, HEADER, SIZE, SIZE) != Check::Good(number) {
        rig.fail("a frame in many buffers has a wrong byte");
    }
    rig.start();
    Some(Must::GoOn)
}

/// 28
pub(super) fn long(rig: &mut Rig, way: u16) -> Option<Must> {
    let lens = [10_000, 65_550, 100_000];
    let &len = lens.get(usize::from(way))?;
    packet::write_plain(&rig.send, rig.mac, len);
    rig.send_bytes(HEADER + len);
    Some(Must::GoOn)
}
