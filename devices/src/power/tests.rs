//! What each register does, and that nothing else does it.

use std::sync::mpsc::{Receiver, channel};

use super::*;

fn handler() -> (PowerHandler, Receiver<PowerEvent>) {
    let (tx, rx) = channel();
    (Box::new(move |event| tx.send(event).unwrap()), rx)
}

#[test]
fn only_s5_with_sleep_enable_powers_off() {
    let (on_event, events) = handler();
    let mut power = AcpiPower::new(on_event);
    for value in 0..=u16::MAX {
        power.write(AcpiPower::CONTROL, &value.to_le_bytes());
        let off = value >> 13 & 1 == 1 && value >> 10 & 7 == 0;
        assert_eq!(events.try_recv().ok(), off.then_some(PowerEvent::Off));
    }
    power.write(AcpiPower::CONTROL + 1, &[0x20]);
    assert_eq!(
        events.try_recv(),
        Ok(PowerEvent::Off),
        "its upper half alone"
    );
    for register in (0..AcpiPower::SIZE).filter(|register| *register != 5) {
        power.write(register, &[0xff]);
        power.write(register, &[0x20]);
    }
    assert!(events.try_recv().is_err(), "no other register does");
}

#[test]
fn the_pm1_registers_read_as_acpi_wants_them() {
    let mut power = AcpiPower::new(handler().0);
    let word = |power: &mut AcpiPower, register| {
        let mut bytes = [0; 2];
        power.read(register, &mut bytes);
        u16::from_le_bytes(bytes)
    };
    power.write(AcpiPower::EVENT, &[0xff, 0xff, 0x20, 0x03]);
    assert_eq!(word(&mut power, AcpiPower::EVENT), 0, "no event happened");
    assert_eq!(word(&mut power, AcpiPower::EVENT + 2), 0x320);
    // SLP_TYP reads back, SCI_EN is always set, SLP_EN never.
    power.write(AcpiPower::CONTROL, &0x3c02u16.to_le_bytes());
    assert_eq!(word(&mut power, AcpiPower::CONTROL), 0x1c01);
}

#[test]
fn the_timer_is_read_whole_and_in_parts_and_beyond_the_end_is_nothing() {
    let mut power = AcpiPower::new(handler().0);
    let mut before = [0; 4];
    power.read(AcpiPower::TIMER, &mut before);
    loop {
        let mut now = [0; 4];
        power.read(AcpiPower::TIMER, &mut now);
        assert_eq!(now[3], 0);
        if now != before {
            break;
        }
    }
    let mut data = [0; 8];
    power.read(AcpiPower::SIZE - 1, &mut data);
    assert_eq!(data, [0; 8]);
    power.read(u64::MAX, &mut data);
    assert_eq!(data, [0; 8]);
}

#[test]
fn the_reset_control_register_resets_by_one_bit() {
    let (on_event, events) = handler();
    let mut register = ResetControl::new(on_event);
    for value in 0..=u8::MAX {
        register.write(0, &[value]);
        let reset = value & 4 != 0;
        assert_eq!(events.try_recv().ok(), reset.then_some(PowerEvent::Reset));
        let mut read = [0];
        register.read(0, &mut read);
        assert_eq!(read, [value & !4]);
    }
}

#[test]
fn the_keyboard_controller_resets() {
    let (on_event, events) = handler();
    let mut keyboard = KeyboardReset::new(on_event);
    keyboard.write(0, &[0xd1]);
    keyboard.write(0, &[0xfe, 0]);
    assert!(events.try_recv().is_err());
    keyboard.write(0, &[0xfe]);
    assert_eq!(events.try_recv(), Ok(PowerEvent::Reset));
    // It takes commands, and is never emptied: nobody takes it for a controller.
    let mut status = [0];
    keyboard.read(0, &mut status);
    assert_eq!(status, [1]);
}
