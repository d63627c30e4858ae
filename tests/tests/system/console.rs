//! Who reads the guest's console: slowly, or not at all.

use std::thread;
use std::time::Duration;

use ringwire_tests::{Guest, Options, Wire};

/// A busy machine under an emulated one.
const PATIENCE: Duration = Duration::from_secs(300);

/// Lines of a number each: 168,894 bytes, more than a pipe and the buffer hold. A guest in an emulated host sends some
/// kilobytes a second.
const LINES: u32 = 30_000;

/// Without what the kernel says in between, also in the middle of a line: `[   40.895255] watchdog: ...`.
fn without_messages(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, message)) = rest.split_once('[') {
        kept.push_str(before);
        rest = message.split_once('\n').map_or("", |(_, after)| after);
    }
    kept + rest
}

/// Linux' driver sends by interrupts, and waits for the one that says that the transmitter is empty.
#[test]
fn a_slow_reader_gets_all_that_the_guest_prints() {
    let mut guest = Guest::boot(Options::new());
    guest.read_slowly(Duration::from_millis(40));
    guest.send(&format!("seq 1 {LINES}"));
    let answer = guest.answer(PATIENCE);
    assert_eq!(answer.status, 0);
    guest.read_slowly(Duration::ZERO);
    let text = without_messages(&answer.text);
    let wanted: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    let mut pairs = text.lines().zip(wanted.lines());
    let wrong = pairs.find(|(got, wanted)| got != wanted);
    assert_eq!(wrong, None, "{}", guest.log());
    assert_eq!(text.len(), wanted.len());
    assert!(guest.power_off().success());
    let log = guest.log();
    assert!(!log.contains("serial output"), "{log}");
}

#[test]
fn a_reader_that_hangs_does_not_stop_the_guest_nor_its_network() {
    let wire = Wire::new();
    let mut guest = Guest::boot(Options::new().cpus(1).on(&wire));
    guest.stop_reading(true);
    guest.send(&format!("seq 1 {LINES}; echo the end"));
    while !guest
        .log()
        .contains("nobody takes the guest's serial output")
    {
        assert!(guest.is_running());
        thread::sleep(Duration::from_millis(50));
    }
    let ping = format!("ping -q -c 20 -i 0.2 -W 10 {}", Wire::GUEST);
    let answer = wire.far(&ping);
    assert!(answer.contains(" 0% packet loss"), "{answer}");
    guest.stop_reading(false);
    // Of what was dropped some lines are missing; the status may be among them.
    while !guest
        .log()
        .contains("somebody takes the guest's serial output again")
    {
        assert!(guest.is_running());
        thread::sleep(Duration::from_millis(50));
    }
    guest.send("echo; echo still there");
    guest.wait_for("still there");
    guest.answer(PATIENCE);
    assert!(guest.power_off().success());
}
