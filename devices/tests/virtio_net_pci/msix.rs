//! 31: vectors, masks, pending bits.

use std::{sync::Arc, thread};

use devices::{
    pci::MsiMessage,
    testing::{register, wait_for},
};

use crate::guest::*;

/// The vector that the driver gives the transmit queue.
const TX_VECTOR: u64 = TX as u64 + 1;

#[test]
fn a_masked_vector_is_pending_and_sent_at_unmask() {
    let mut guest = NetGuest::start("tmask");
    let vector = usize::try_from(TX_VECTOR).unwrap();
    for whole_function in [false, true] {
        while guest.driver.interrupted() {}
        match whole_function {
            true => guest.driver.pci().enable_msix(true, true),
            false => guest.driver.pci().mask(TX_VECTOR, true),
        }
        guest.tx.set_used_event(guest.tx.used_idx());
        guest.transmit(&pattern(60, 1));
        let pci = guest.driver.pci();
        wait_for("the pending bit", || {
            pci.is_pending(TX_VECTOR).then_some(())
        });
        assert!(!pci.take_interrupt(vector), "masked");
        assert!(
            !pci.is_pending(TX_VECTOR + 1),
            "the others' bits are theirs"
        );
        match whole_function {
            true => pci.enable_msix(true, false),
            false => pci.mask(TX_VECTOR, false),
        }
        assert!(pci.take_interrupt(vector), "sent at unmask");
        assert!(!pci.is_pending(TX_VECTOR));
        assert!(!pci.take_interrupt(vector), "once");
        guest.sent();
    }
    guest.check_traffic();
}

#[test]
fn the_machine_learns_routes_before_they_are_used() {
    let mut guest = NetGuest::plug("troute");
    let pci = guest.driver.pci();
    let message = |address, data| MsiMessage { address, data };
    let first: Vec<_> = pci.take_routes();
    assert_eq!(first.len(), 4, "{first:x?}");
    for ((vector, route, masked), data) in first.into_iter().zip(0x4000..) {
        assert_eq!(u32::from(vector), data - 0x4000);
        assert_eq!(route, message(0xfee0_0000, data));
        assert!(!masked);
    }
    pci.set_entry(1, 0xfee0_1000, 0x33, false);
    assert_eq!(
        pci.take_routes(),
        [
            (1, message(0xfee0_0000, 0x4001), true),
            (1, message(0xfee0_1000, 0x4001), true),
            (1, message(0xfee0_1000, 0x33), true),
            (1, message(0xfee0_1000, 0x33), false),
        ]
    );
    pci.mask(1, false);
    pci.enable_msix(true, false);
    assert_eq!(pci.take_routes(), [], "nothing changed");
    pci.enable_msix(false, false);
    pci.set_entry(2, 0xfee0_2000, 0x44, false);
    assert_eq!(pci.take_routes(), [], "not in use");
    pci.enable_msix(true, false);
    assert_eq!(pci.take_routes(), [(2, message(0xfee0_2000, 0x44), false)]);
}

#[test]
fn odd_table_accesses_change_nothing() {
    let mut guest = NetGuest::start("ttable");
    let pci = guest.driver.pci();
    let whole = |pci: &devices::testing::PciGuest| {
        let mut table = [0; 48];
        for (at, byte) in (0..).zip(&mut table) {
            pci.read(pci.table + at, std::slice::from_mut(byte));
        }
        table
    };
    let before = whole(pci);
    assert_eq!(
        before[16..28],
        [0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 1, 0x40, 0, 0]
    );
    for len in [1, 2, 3, 5, 6, 7] {
        for offset in 0..48 {
            pci.write(pci.table + offset, &vec![0xff; len]);
        }
    }
    for offset in (0..48).filter(|offset| offset % 4 != 0) {
        pci.write(pci.table + offset, &[0xff; 4]);
    }
    for offset in (0..48).filter(|offset| offset % 8 != 0) {
        pci.write(pci.table + offset, &[0xff; 8]);
    }
    // Behind the table, and the pending bits, which are read-only.
    for offset in (48..0x1000).step_by(4) {
        pci.write(pci.table + offset, &[0xff; 4]);
    }
    for offset in (0..0x1000).step_by(8) {
        pci.write(pci.pending + offset, &[0xff; 8]);
    }
    assert_eq!(whole(pci), before);
    let mut bits = [0xff; 8];
    pci.read(pci.pending, &mut bits);
    assert_eq!(bits, [0; 8]);
    // Reserved bits of Vector Control do not stick; quad words work.
    pci.write(pci.table + 24, &0xffff_fffe_0000_4001u64.to_le_bytes());
    assert_eq!(whole(pci), before);
    guest.check_traffic();
}

/// 4.1.5.1.2.1: a vector that does not exist can't be chosen; without one there is no interrupt.
#[test]
fn vectors_out_of_range_read_back_as_none() {
    let mut guest = NetGuest::plug("tvec");
    guest.boot();
    let pci = guest.driver.pci();
    let mut read = [0; 2];
    pci.write(pci.common + 22, &TX.to_le_bytes());
    for vector in [4u16, 5, 0x7ff, 0x800, 0xfffe, 0xffff] {
        for field in [16, 26] {
            pci.write(pci.common + field, &[0, 0]);
            pci.write(pci.common + field, &vector.to_le_bytes());
            pci.read(pci.common + field, &mut read);
            assert_eq!(read, [0xff, 0xff], "{vector:#x}");
        }
    }
    while guest.driver.interrupted() {}
    guest.transmit(&pattern(60, 1));
    guest.control.set_link(false);
    guest.sent();
    assert!(!guest.driver.interrupted());
    guest.driver.write(register::STATUS, 0);
    guest.control.set_link(true);
    guest.boot();
    guest.check_traffic();
}

/// 31: whoever is second, the masking vCPU or the raising thread, delivers.
#[test]
fn no_interrupt_is_lost_to_a_storm_of_masks() {
    let mut guest = NetGuest::start("tstorm");
    let vector = usize::try_from(TX_VECTOR).unwrap();
    let function = Arc::clone(guest.driver.pci().bus());
    let control = guest.driver.pci().table + 16 * TX_VECTOR + 12;
    let ender = Ender::default();
    thread::scope(|scope| {
        let guard = ender.guard();
        scope.spawn(|| {
            while ender.goes_on() {
                function.write(control, &[1, 0, 0, 0]);
                function.write(control, &[0, 0, 0, 0]);
            }
        });
        for seed in 0..2000 {
            // One interrupt for this frame and no other.
            guest.tx.set_used_event(guest.tx.used_idx());
            guest.transmit(&pattern(60, seed));
            let pci = guest.driver.pci();
            wait_for("the interrupt", || pci.take_interrupt(vector).then_some(()));
            guest.sent();
        }
        drop(guard);
    });
    guest.assert_sound();
}
