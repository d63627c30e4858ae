//! Bus Master Enable, cleared and set at any time: 59. The device must not write to memory without it, and must have done
//! all it was asked for with it.

use core::{hint, sync::atomic::Ordering};

use guest::{
    memory::Region,
    mmio::status,
    odd::{self, Width},
    ring::{DESCRIPTOR, INDEX, WRITE},
};

use super::{BAR0, COMMAND, Function, MASTER, MEMORY, Must};
use crate::rig::Rig;

/// Offsets in `struct virtio_pci_common_cfg` (4.1.4.3), and of the notification of queue 0 in the same BAR.
const FEATURE_SELECT: u64 = 8;
const FEATURES: u64 = 12;
const STATUS: u64 = 20;
const QUEUE_SIZE: u64 = 24;
const QUEUE_ENABLE: u64 = 28;
const RINGS: [u64; 3] = [32, 40, 48];
const NOTIFY: u64 = 0x3000;

/// Entries of the queue, bytes of a request, and where its parts are in the memory for tables.
const SIZE: u16 = 8;
const REQUEST: u32 = 64;
const PARTS: [usize; 3] = [0, 0x1000, 0x2000];
const BUFFER: usize = 0x3000;
const ALL: usize = 0x4000;

/// How often it is toggled.
const TIMES: u16 = 200;

/// The entropy device with a queue of its own.
struct Entropy {
    function: Function,
    memory: Region,
    asked: u16,
}

impl Entropy {
    /// From reset to DRIVER_OK.
    fn start(function: Function, memory: Region) -> Self {
        memory.fill(0, ALL, 0);
        let device = Self {
            function,
            memory,
            asked: 0,
        };
        device.set(STATUS, Width::Byte, 0);
        let mut steps = 0;
        for step in [status::ACKNOWLEDGE, status::DRIVER, status::FEATURES_OK] {
            if step == status::FEATURES_OK {
                // VERSION_1, and nothing else.
                for (select, features) in [(0, 0), (1, 1)] {
                    device.set(FEATURE_SELECT, Width::Long, select);
                    device.set(FEATURES, Width::Long, features);
                }
            }
            steps |= step;
            device.set(STATUS, Width::Byte, steps.into());
        }
        device.set(QUEUE_SIZE, Width::Word, SIZE.into());
        for (register, part) in RINGS.into_iter().zip(PARTS) {
            let address = memory.address() + part as u64;
            device.set(register, Width::Long, address);
            device.set(register + 4, Width::Long, address >> 32);
        }
        device.set(QUEUE_ENABLE, Width::Word, 1);
        device.set(STATUS, Width::Byte, (steps | status::DRIVER_OK).into());
        device
    }

    fn set(&self, at: u64, width: Width, value: u64) {
        odd::write(self.function.bar(BAR0) + at, width, value);
    }

    fn master(&self, on: bool) {
        let command = if on { MEMORY | MASTER } else { MEMORY };
        odd::write(self.function.config + COMMAND, Width::Word, command);
    }

    /// Asks for random bytes, and kicks.
    fn ask(&mut self) {
        let [table, avail, _] = PARTS;
        let (memory, slot) = (self.memory, self.asked % SIZE);
        let address = memory.address() + BUFFER as u64 + u64::from(REQUEST) * u64::from(slot);
        let descriptor = table + usize::from(slot) * DESCRIPTOR;
        memory.u64(descriptor).store(address, Ordering::Relaxed);
        memory.u32(descriptor + 8).store(REQUEST, Ordering::Relaxed);
        memory.u16(descriptor + 12).store(WRITE, Ordering::Relaxed);
        let entry = avail + 4 + 2 * usize::from(slot);
        memory.u16(entry).store(slot, Ordering::Relaxed);
        self.asked = self.asked.wrapping_add(1);
        self.memory
            .u16(avail + INDEX)
            .store(self.asked, Ordering::SeqCst);
        self.set(NOTIFY, Width::Word, 0);
    }

    fn done(&self) -> u16 {
        let [_, _, used] = PARTS;
        self.memory.u16(used + INDEX).load(Ordering::SeqCst)
    }

    /// Without it: nothing is written, for a while.
    fn assert_rests(&self, rig: &Rig) {
        let before = self.sum();
        for _ in 0..2000 {
            hint::spin_loop();
        }
        if self.sum() != before {
            rig.fail("the device writes to memory without Bus Master Enable");
        }
    }

    /// With it: all that was asked for comes.
    fn wait(&self, rig: &Rig) {
        let mut watch = rig.watch();
        while self.done() != self.asked {
            watch.turn(
                rig,
                "a request of before is not done with Bus Master Enable",
            );
        }
    }

    /// Changes if any byte does, most likely.
    fn sum(&self) -> u64 {
        let words = (PARTS[2]..ALL).step_by(8);
        let word = |at| self.memory.u64(at).load(Ordering::SeqCst);
        words.fold(0, |sum: u64, at| sum.rotate_left(5) ^ word(at))
    }
}

/// 59
pub(in crate::entries) fn bus_master(rig: &mut Rig, way: u16) -> Option<Must> {
    let function = Function::find()?;
    match way {
        // In a device at work.
        0 => {
            let mut device = Entropy::start(function, rig.table);
            for n in 0..TIMES {
                if n % 3 > 0 {
                    device.ask();
                }
                device.master(false);
                if n % 3 > 1 {
                    device.ask();
                }
                device.assert_rests(rig);
                device.master(true);
                device.wait(rig);
            }
        }
        // From before DRIVER_OK, and over a reset.
        1 => {
            for _ in 0..TIMES / 4 {
                odd::write(function.config + COMMAND, Width::Word, MEMORY);
                let mut device = Entropy::start(function, rig.table);
                device.ask();
                device.assert_rests(rig);
                device.master(true);
                device.wait(rig);
                device.master(false);
                device.ask();
                device.set(STATUS, Width::Byte, 0);
                device.master(true);
                device.assert_rests(rig);
            }
        }
        // With all other bits of the command, at every width, and nothing asked for.
        2 => {
            let device = Entropy::start(function, rig.table);
            for n in 0..u64::from(TIMES) {
                for width in Width::ALL {
                    odd::write(
                        function.config + COMMAND,
                        width,
                        (n * 0x1_2345_6789) | MEMORY,
                    );
                }
            }
            device.master(true);
            device.wait(rig);
        }
        _ => return None,
    }
    odd::write(function.bar(BAR0) + STATUS, Width::Byte, 0);
    Some(Must::GoOn)
}
