//! The bus without a virtio device: plugs, places, and functions that quarrel over them.

use std::sync::{Arc, Mutex};

use super::*;
use crate::bus::BusDevice;

const START: u64 = 0x10_0000_0000;
const SIZE: u64 = 0x10_0000;

/// A function with two BARs whose bytes are its number.
struct Plain {
    config: ConfigSpace,
    space: Box<dyn BarSpace>,
    number: u8,
}

impl PciFunction for Plain {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data, &mut *self.space);
    }

    fn read_bar(&mut self, bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(self.number + bar);
    }

    fn write_bar(&mut self, _bar: u8, _offset: u64, _data: &[u8]) {}
}

fn identity() -> Identity {
    Identity {
        vendor: 0x1af4,
        device: 0x1050,
        revision: 1,
        class: 0xff_0000,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1050,
    }
}

fn plug(bus: &PciBus, slot: u8, bars: [u64; 2]) -> Arc<Mutex<Plain>> {
    let mut config = ConfigSpace::new(&identity());
    config.add_bar(0, 0x1000, bars[0]);
    config.add_bar(2, 0x1000, bars[1]);
    let function = Arc::new(Mutex::new(Plain {
        config,
        space: bus.bar_space(slot),
        number: slot * 16,
    }));
    bus.plug(slot, function.clone()).unwrap();
    function
}

fn command(function: &Mutex<Plain>, value: u16) -> u16 {
    let mut function = function.lock().unwrap();
    function.write_config(4, &value.to_le_bytes());
    u16::from_le_bytes(function.config.get(4))
}

fn set_bar(function: &Mutex<Plain>, register: u16, address: u64) {
    let mut function = function.lock().unwrap();
    function.write_config(register, &address.to_le_bytes());
}

fn byte_at(bus: &Arc<PciBus>, address: u64) -> u8 {
    let mut data = [0];
    Aperture(Arc::clone(bus)).read(address - START, &mut data);
    data[0]
}

#[test]
fn impossible_buses_and_slots_are_refused() {
    for range in [START..START, START + 1..START + SIZE, START..START + 0x10] {
        assert!(PciBus::new(range.clone()).is_err(), "{range:x?}");
    }
    let bus = PciBus::new(START..START + SIZE).unwrap();
    let function = plug(&bus, 1, [START, START + 0x1000]);
    for slot in [0, 1, 32, 255] {
        let refused = bus.plug(slot, function.clone()).unwrap_err();
        assert_eq!(refused, PciError::Slot(slot));
    }
    bus.plug(31, function).unwrap();
}

#[test]
fn functions_answer_only_where_and_while_they_decode() {
    let bus = PciBus::new(START..START + SIZE).unwrap();
    let one = plug(&bus, 1, [START, START + 0x1000]);
    let two = plug(&bus, 2, [START + 0x2000, START + 0x3000]);
    assert_eq!(byte_at(&bus, START), 0xff);
    assert_eq!((command(&one, 2), command(&two, 2)), (2, 2));
    let seen = [0, 0x1fff, 0x2000, 0x3000, 0x4000].map(|at| byte_at(&bus, START + at));
    assert_eq!(seen, [16, 18, 32, 34, 0xff]);
    // Onto the neighbour: refused; off, and the neighbour's place is free.
    set_bar(&one, 0x10, START + 0x2000);
    assert_eq!(byte_at(&bus, START), 16);
    assert_eq!(byte_at(&bus, START + 0x2000), 32);
    assert_eq!(command(&two, 0), 0);
    set_bar(&one, 0x10, START + 0x2000);
    assert_eq!(byte_at(&bus, START), 0xff);
    assert_eq!(byte_at(&bus, START + 0x2000), 16);
}

/// The place of a function that slept was taken: it can't decode until it is given another.
#[test]
fn a_function_without_a_place_stays_off() {
    let bus = PciBus::new(START..START + SIZE).unwrap();
    let one = plug(&bus, 1, [START, START + 0x1000]);
    let two = plug(&bus, 2, [START + 0x1000, START + 0x2000]);
    assert_eq!(command(&one, 6), 6);
    assert_eq!(command(&two, 6), 4, "memory decoding stays off");
    assert_eq!(byte_at(&bus, START + 0x2000), 0xff, "for both BARs");
    assert_eq!(byte_at(&bus, START + 0x1000), 18);
    set_bar(&two, 0x10, START + 0x8000);
    assert_eq!(command(&two, 6), 6);
    assert_eq!(byte_at(&bus, START + 0x8000), 32);
    assert_eq!(byte_at(&bus, START + 0x2000), 34);
}

/// Nothing keeps a bus and its functions alive but their owner.
#[test]
fn a_bus_and_its_functions_are_dropped() {
    let bus = PciBus::new(START..START + SIZE).unwrap();
    let function = Arc::downgrade(&plug(&bus, 1, [START, START + 0x1000]));
    assert!(function.upgrade().is_some());
    drop(bus);
    assert!(function.upgrade().is_none());
}

#[test]
fn tables_of_any_length_have_room() {
    for (vectors, size) in [(1, 0x2000), (256, 0x2000), (257, 0x4000), (2048, 0x10000)] {
        assert_eq!(Msix::bar_size_for(vectors), size, "{vectors}");
    }
}
