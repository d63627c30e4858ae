//! A PCI function that is driven badly, beside the card, which is on MMIO: 31, 33, 59. It is the machine's entropy device,
//! which nobody uses; a machine without PCI has none.

mod bus_master;

use guest::odd::{self, Width};

use super::Must;
use crate::rig::Rig;
pub(super) use bus_master::bus_master;

/// Configuration space of bus 0, and of a slot of it.
const ECAM: u64 = 0xe000_0000;
const SLOT: u64 = 1 << 15;
const SLOTS: u64 = 32;
/// Vendor and device of a virtio entropy device (virtio 1.2, 4.1.2).
const ENTROPY: u64 = 0x1044_1af4;

/// Offsets in configuration space (PCI 3.0, 6.1), and bits of the command.
const COMMAND: u64 = 0x04;
const MEMORY: u64 = 1 << 1;
const MASTER: u64 = 1 << 2;
const BAR0: u64 = 0x10;
const BAR2: u64 = 0x18;
const CAPABILITIES: u64 = 0x34;
const MSIX: u64 = 0x11;

/// Offsets in `struct virtio_pci_common_cfg` (4.1.4.3), at the beginning of the first BAR.
const CONFIG_VECTOR: u64 = 16;
const QUEUES: u64 = 18;
const QUEUE_VECTOR: u64 = 26;
const NO_VECTOR: u64 = 0xffff;

/// Bytes of the second BAR, with the MSI-X table and the pending bits.
const TABLES: u64 = 0x2000;

#[derive(Debug, Clone, Copy)]
struct Function {
    config: u64,
}

impl Function {
    fn find() -> Option<Self> {
        let slots = (0..SLOTS).map(|slot| ECAM + slot * SLOT);
        let mut functions = slots.map(|config| Self { config });
        let function = functions.find(|it| it.read(0) == ENTROPY)?;
        function.decode(true);
        Some(function)
    }

    fn read(self, at: u64) -> u64 {
        odd::read(self.config + at, Width::Long)
    }

    fn write(self, at: u64, value: u64) {
        odd::write(self.config + at, Width::Long, value);
    }

    /// Whether it answers at its BARs.
    fn decode(self, on: bool) {
        let command = if on { MEMORY | MASTER } else { MASTER };
        odd::write(self.config + COMMAND, Width::Word, command);
    }

    fn bar(self, register: u64) -> u64 {
        self.read(register) & !0xf | self.read(register + 4) << 32
    }

    /// A register of the common configuration.
    fn common(self, at: u64) -> u64 {
        odd::read(self.bar(BAR0) + at, Width::Word)
    }

    fn set_common(self, at: u64, value: u64) {
        odd::write(self.bar(BAR0) + at, Width::Word, value);
    }

    /// # Panics
    /// The BAR is elsewhere, or its registers are not behind it.
    fn assert_there(self, rig: &Rig, register: u64, base: u64) {
        if self.bar(register) != base {
            rig.fail("the BAR is not where it was");
        }
        if self.common(QUEUES) != 1 {
            rig.fail("the registers are not where the BAR is");
        }
    }

    /// Message control of the MSI-X capability.
    fn message_control(self) -> Option<u64> {
        let mut at = self.read(CAPABILITIES) & 0xfc;
        // As many as there can be.
        for _ in 0..48 {
            let head = self.read(at);
            if head & 0xff == MSIX {
                return Some(self.config + at + 2);
            }
            at = head >> 8 & 0xfc;
        }
        None
    }
}

/// 33
pub(super) fn bars(rig: &mut Rig, way: u16) -> Option<Must> {
    let function = Function::find()?;
    let (first, second) = (function.bar(BAR0), function.bar(BAR2));
    match way {
        // RAM, the card of ours, below and past the window, the local APIC; the other BAR.
        0 => {
            for to in [
                0,
                0x10_0000,
                0xd000_0000,
                0xe7ff_c000,
                0xf000_0000,
                0xfee0_0000,
                second,
            ] {
                function.write(BAR0, to);
                function.assert_there(rig, BAR0, first);
            }
        }
        // Sized in use.
        1 => {
            for (register, base) in [(BAR0, first), (BAR2, second)] {
                for _ in 0..50 {
                    function.write(register, u64::MAX);
                    function.write(register + 4, u64::MAX);
                    let size = function.read(register);
                    if size == 0 || size & 0xf != 0b100 {
                        rig.fail("a BAR tells no size");
                    }
                    function.write(register, base);
                    function.write(register + 4, base >> 32);
                    function.assert_there(rig, register, base);
                }
            }
        }
        // Moved about, and not there meanwhile.
        2 => {
            for n in 0..100 {
                function.decode(false);
                function.write(BAR0, 0xec00_0000 + n * 0x4000);
                function.decode(true);
                function.assert_there(rig, BAR0, 0xec00_0000 + n * 0x4000);
            }
            function.decode(false);
            function.write(BAR0, first);
            function.decode(true);
            function.assert_there(rig, BAR0, first);
        }
        _ => return None,
    }
    Some(Must::GoOn)
}

/// 31
pub(super) fn vectors(rig: &mut Rig, way: u16) -> Option<Must> {
    let function = Function::find()?;
    let tables = function.bar(BAR2);
    match way {
        // Vectors that there are not; and one that there is.
        0 => {
            function.set_common(CONFIG_VECTOR, 0);
            if function.common(CONFIG_VECTOR) != 0 {
                rig.fail("a vector is not taken");
            }
            for vector in [100, 2047, 2048, 0x7fff, 0xfffe] {
                for register in [CONFIG_VECTOR, QUEUE_VECTOR] {
                    function.set_common(register, vector);
                    if function.common(register) != NO_VECTOR {
                        rig.fail("a vector that is none is taken");
                    }
                }
            }
        }
        // Odd writes to the table, to what is behind it, and to the pending bits.
        1 => {
            for at in (0..64).chain((64..TABLES).step_by(61)) {
                for width in Width::ALL {
                    for value in [u64::MAX, 0, 0xfee0_1004] {
                        odd::write(tables + at, width, value);
                    }
                    let _ = odd::read(tables + at, width);
                }
            }
        }
        // Masks of entries and of the function.
        2 => {
            let Some(control) = function.message_control() else {
                rig.fail("there is no MSI-X capability");
            };
            for n in 0..200 {
                odd::write(control, Width::Word, 0x8000 | (n & 1) << 14);
                odd::write(tables + 12, Width::Long, n >> 1 & 1);
                odd::write(tables + 28, Width::Long, n >> 2 & 1);
            }
            odd::write(control, Width::Word, 0);
        }
        _ => return None,
    }
    if function.common(QUEUES) != 1 {
        rig.fail("the registers are gone");
    }
    Some(Must::GoOn)
}
