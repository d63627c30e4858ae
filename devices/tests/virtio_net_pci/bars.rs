//! 33, 36: BARs that are sized, moved, moved to where they can't be, and pointed at.

use std::{sync::Arc, thread};

use devices::testing::{APERTURE, Buffer, PciGuest, wait_for};

use crate::guest::*;

const BAR0: u16 = 0x10;
const BAR2: u16 = 0x18;

fn halves(pci: &mut PciGuest, register: u16, address: u64) {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    pci.set_config(register, &[a, b, c, d]);
    pci.set_config(register + 4, &[e, f, g, h]);
}

/// As operating systems do it: decoding off, both halves, decoding on.
fn relocate(pci: &mut PciGuest, register: u16, address: u64) {
    pci.set_config(4, &[4, 0]);
    assert!(!pci.read(pci.common, &mut [0; 4]), "nothing is decoded");
    halves(pci, register, address);
    pci.set_config(4, &[6, 0]);
}

#[test]
fn bars_tell_their_size_while_they_work() {
    let mut guest = NetGuest::start("tsize");
    for (register, size) in [(BAR0, 0x4000), (BAR2, 0x2000)] {
        let pci = guest.driver.pci();
        let before: [u8; 8] = pci.config(register);
        assert_eq!(before[0] & 0xf, 0b0100, "64 bits, not prefetchable");
        pci.set_config(register, &[0xff; 4]);
        let low = u32::from_le_bytes(pci.config(register));
        assert_eq!(low & 0xf, 0b0100);
        assert_eq!(!(low & !0xf) + 1, size);
        // Both halves at once look all ones: I/O goes on at the old place.
        pci.set_config(register + 4, &[0xff; 4]);
        assert_eq!(pci.config(register + 4), [0xff; 4]);
        guest.check_traffic();
        let pci = guest.driver.pci();
        pci.set_config(register, &before[..4]);
        pci.set_config(register + 4, &before[4..]);
        assert_eq!(pci.config(register), before);
        guest.check_traffic();
    }
    for register in [0x20, 0x24, 0x30] {
        let pci = guest.driver.pci();
        pci.set_config(register, &[0xff; 4]);
        assert_eq!(pci.config(register), [0; 4], "no such BAR");
    }
}

#[test]
fn a_bar_can_be_moved_and_takes_its_registers_along() {
    let mut guest = NetGuest::start("tmove");
    let pci = guest.driver.pci();
    let old = pci.common;
    let places = [APERTURE.start, APERTURE.end - 0x4000, 0x10_0abc_0000];
    for place in places {
        relocate(guest.driver.pci(), BAR0, place);
        let pci = guest.driver.pci();
        assert_eq!(pci.bar(0), place);
        pci.find_registers();
        assert!(!pci.read(old, &mut [0; 4]), "nothing at the old place");
        guest.check_traffic();
    }
    relocate(guest.driver.pci(), BAR2, 0x10_0def_0000);
    guest.driver.pci().find_registers();
    guest.check_traffic();
}

/// 33: RAM, another BAR, past the end, around the end: the BAR stays, and says so.
#[test]
fn a_refused_move_is_rolled_back() {
    let mut guest = NetGuest::start("t33");
    let (first, second) = (guest.driver.pci().bar(0), guest.driver.pci().bar(2));
    let refused = [
        0,
        0x10_0000,
        APERTURE.start - 0x4000,
        APERTURE.end,
        second & !0x3fff,
        u64::MAX << 14,
        1 << 63,
    ];
    for address in refused {
        // With decoding off meanwhile, and without.
        relocate(guest.driver.pci(), BAR0, address);
        assert_eq!(guest.driver.pci().bar(0), first, "{address:#x}");
        assert_eq!(guest.driver.pci().config(4), [6, 0], "decoding");
        guest.check_traffic();
        let [.., e, f, g, h] = address.to_le_bytes();
        guest.driver.pci().set_config(BAR0 + 4, &[e, f, g, h]);
        guest.check_traffic();
        relocate(guest.driver.pci(), BAR0, first);
    }
    relocate(guest.driver.pci(), BAR2, first + 0x2000);
    assert_eq!(guest.driver.pci().bar(2), second);
    guest.check_traffic();
    guest.assert_sound();
}

/// 33: a BAR that takes the place another one needs goes back, also while neither answers.
#[test]
fn a_bar_can_not_take_anothers_place() {
    let mut guest = NetGuest::start("t33b");
    let pci = guest.driver.pci();
    let (first, second) = (pci.bar(0), pci.bar(2));
    for (one, other) in [(second, second), (second, first), (first, first)] {
        let pci = guest.driver.pci();
        pci.set_config(4, &[4, 0]);
        halves(pci, BAR0, one);
        halves(pci, BAR2, other);
        pci.set_config(4, &[6, 0]);
        assert_eq!(pci.config(4), [6, 0], "decoding");
        if (one, other) == (second, first) {
            assert_eq!((pci.bar(0), pci.bar(2)), (second, first), "exchanged");
            pci.find_registers();
            guest.check_traffic();
            let pci = guest.driver.pci();
            pci.set_config(4, &[4, 0]);
            halves(pci, BAR0, first);
            halves(pci, BAR2, second);
            pci.set_config(4, &[6, 0]);
            pci.find_registers();
        }
        let pci = guest.driver.pci();
        assert_eq!((pci.bar(0), pci.bar(2)), (first, second));
        guest.check_traffic();
    }
}

/// 33: the BAR is sized and moved by one vCPU while others use it.
#[test]
fn moving_during_traffic_hurts_nobody() {
    let mut guest = NetGuest::start("t33c");
    let bus = Arc::clone(guest.driver.pci().bus());
    let (common, home) = (guest.driver.pci().common, guest.driver.pci().bar(0));
    let ender = Ender::default();
    thread::scope(|scope| {
        let guard = ender.guard();
        scope.spawn(|| {
            while ender.goes_on() {
                // Whatever answers, or does not.
                bus.read(common + 20, &mut [0]);
                bus.write(common + 22, &[1, 0]);
            }
        });
        for round in 0..500u64 {
            let pci = guest.driver.pci();
            pci.set_config(BAR0, &[0xff; 4]);
            halves(pci, BAR0, home);
            relocate_quietly(pci, home + 0x40_0000 + 0x4000 * (round % 8));
            relocate_quietly(pci, home);
        }
        drop(guard);
    });
    guest.check_traffic();
    guest.assert_sound();
}

fn relocate_quietly(pci: &mut PciGuest, address: u64) {
    pci.set_config(4, &[4, 0]);
    halves(pci, BAR0, address);
    pci.set_config(4, &[6, 0]);
}

/// 36: a buffer in our own BAR is no RAM.
#[test]
fn a_descriptor_that_points_at_the_bar_stops_the_queue() {
    let mut guest = NetGuest::start("t36");
    for offset in [0, 0x3000] {
        let address = guest.driver.pci().bar(0) + offset;
        guest.tx.add(&[Buffer::readable(address, 64)]);
        guest.driver.kick(TX);
        guest.driver.wait_needs_reset();
        assert_eq!(guest.driver.wait_interrupt() & 2, 2);
        guest.boot();
        guest.rx.add(&[Buffer::writable(address, 2048)]);
        guest.driver.kick(RX);
        guest.inject(&pattern(64, 1));
        guest.driver.wait_needs_reset();
        guest.boot();
        guest.check_traffic();
    }
    // Rings in the BAR are refused.
    guest.set_up();
    let bar = guest.driver.pci().bar(0);
    guest.tx.relocate(2, bar);
    guest.driver.enable(&guest.rx);
    guest.driver.enable(&guest.tx);
    guest.driver.start();
    wait_for("DEVICE_NEEDS_RESET", || {
        (guest.driver.status() & 64 != 0).then_some(())
    });
    guest.boot();
    guest.check_traffic();
}

/// The host bridge and the empty slots.
#[test]
fn the_rest_of_the_bus_is_as_software_expects() {
    use devices::{
        bus::BusDevice,
        pci::{ECAM_SIZE, Ecam},
    };
    let mut guest = NetGuest::plug("tbus");
    let mut ecam = Ecam(Arc::clone(guest.driver.pci().bus()));
    let mut read = |offset, len| {
        let mut data = vec![0; len];
        ecam.read(offset, &mut data);
        data
    };
    assert_eq!(read(8, 4), [0, 0, 0, 6], "a host bridge");
    for slot in 0..32u64 {
        for function in 0..8u64 {
            let there = (slot == 0 || slot == 3) && function == 0;
            let id = read(slot << 15 | function << 12, 4);
            assert_eq!(id != [0xff; 4], there, "{slot}.{function}");
        }
    }
    assert_eq!(read(ECAM_SIZE - 1, 1), [0xff]);
    assert_eq!(read(ECAM_SIZE, 4), [0xff; 4]);
    assert_eq!(read(u64::MAX, 8), [0xff; 8]);
    let bars = read(0x10, 8);
    for offset in (0..0x1000).chain([1 << 15, 31 << 15, u64::MAX]) {
        for len in [1, 2, 4, 8] {
            ecam.write(offset, &vec![0xff; len]);
        }
    }
    let mut after = vec![0; 8];
    ecam.read(0x10, &mut after);
    assert_eq!(bars, after, "no BARs");
}
