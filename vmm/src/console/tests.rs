//! The console's ends on real pipes.

use std::io::{Read, Write};

use devices::bus::BusDevice;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;

const DATA: u64 = 0;
const MCR: u64 = 4;
const LSR: u64 = 5;

struct Guest(Arc<Mutex<SerialPort>>);

impl Guest {
    fn read(&self, register: u64) -> u8 {
        let mut data = [0];
        self.0.lock().unwrap().read(register, &mut data);
        data[0]
    }

    fn listen(&self) {
        self.0.lock().unwrap().write(MCR, &[3]);
    }

    /// Polls the line until `count` bytes came.
    fn receive(&self, count: usize) -> Vec<u8> {
        let mut received = Vec::new();
        while received.len() < count {
            if self.read(LSR) & 1 == 1 {
                received.push(self.read(DATA));
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
        received
    }
}

fn start(escape: bool) -> (Guest, Input, PipeWriter, ExitRequest) {
    let (source, writer) = io::pipe().unwrap();
    let room = Room::new().unwrap();
    let signal = room.clone();
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let port = SerialPort::new(irq, Box::new(move || signal.signal()), Box::new(io::sink()));
    let port = Arc::new(Mutex::new(port));
    let exit = ExitRequest::new().unwrap();
    let config = InputConfig {
        source: source.into(),
        port: port.clone(),
        room,
        escape,
        exit: exit.clone(),
    };
    (
        Guest(port),
        Input::start(config, &Placement::default(), &Arc::default()).unwrap(),
        writer,
        exit,
    )
}

#[test]
fn piped_input_arrives_whole_however_slow_the_guest() {
    let (guest, _input, mut writer, _exit) = start(false);
    let sent: Vec<u8> = (0..=250).cycle().take(5000).collect();
    let copy = sent.clone();
    let feeder = thread::spawn(move || writer.write_all(&copy));
    guest.listen();
    assert_eq!(guest.receive(sent.len()), sent);
    feeder.join().unwrap().unwrap();
}

#[test]
fn input_waits_until_the_guest_listens() {
    let (guest, _input, mut writer, _exit) = start(false);
    writer.write_all(b"early").unwrap();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(guest.read(LSR) & 1, 0, "fed before the driver was there");
    guest.listen();
    assert_eq!(guest.receive(5), b"early");
}

#[test]
fn escapes_count_only_for_people() {
    let (guest, _input, mut writer, exit) = start(false);
    guest.listen();
    writer.write_all(b"\x01x").unwrap();
    assert_eq!(guest.receive(2), b"\x01x");
    assert_eq!(exit.reason(), None);

    let (_guest, _input, mut writer, exit) = start(true);
    writer.write_all(b"\x01x").unwrap();
    while exit.reason().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(exit.reason(), Some(&ExitReason::Escape));
}

#[test]
fn the_end_of_input_is_quiet_and_ends_nothing() {
    let (_guest, input, writer, exit) = start(true);
    drop(writer);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(exit.reason(), None);
    drop(input);
}

/// A port whose output goes into a pipe.
fn start_output() -> (Guest, Output, PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let config = OutputConfig::new(Place::stream(writer.into()));
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let port = SerialPort::new(irq, Box::new(|| {}), config.sender());
    let port = Arc::new(Mutex::new(port));
    crate::vcpu::install_kick_handler().unwrap();
    let exit = ExitRequest::new().unwrap();
    let output = config.start(port.clone(), exit, &Placement::default(), &Arc::default());
    (Guest(port), output.unwrap(), reader)
}

#[test]
fn a_slow_reader_gets_all_that_the_guest_sends() {
    let (guest, output, mut reader) = start_output();
    // More than pipe and buffer hold.
    let sent: Vec<u8> = (0..=250).cycle().take(400_000).collect();
    let received = thread::scope(|scope| {
        // Looks at the transmitter only now and then.
        scope.spawn(|| {
            for some in sent.chunks(1000) {
                while guest.read(LSR) & 0x20 == 0 {
                    thread::yield_now();
                }
                for byte in some {
                    guest.0.lock().unwrap().write(DATA, &[*byte]);
                }
            }
        });
        let mut received = vec![0; sent.len()];
        for piece in received.chunks_mut(20_000) {
            thread::sleep(Duration::from_millis(5));
            reader.read_exact(piece).unwrap();
        }
        received
    });
    assert!(received == sent, "whole, and in order");
    output.finish(|| true);
}

/// A pipe has room again only when a whole page of it was read.
#[test]
fn a_reader_that_takes_a_few_bytes_a_second_is_not_one_that_hangs() {
    let (guest, output, mut reader) = start_output();
    let sent: Vec<u8> = (0..=250).cycle().take(150_000).collect();
    let end = std::sync::atomic::AtomicBool::new(false);
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            for byte in &sent {
                guest.0.lock().unwrap().write(DATA, &[*byte]);
            }
            end.store(true, std::sync::atomic::Ordering::Release);
        });
        let mut received = Vec::new();
        // For longer than a reader may hang.
        for _ in 0..12 {
            thread::sleep(Duration::from_millis(200));
            let mut piece = [0; 10];
            reader.read_exact(&mut piece).unwrap();
            received.extend(piece);
        }
        assert!(!end.load(std::sync::atomic::Ordering::Acquire), "it waits");
        let mut rest = vec![0; sent.len() - received.len()];
        reader.read_exact(&mut rest).unwrap();
        [received, rest].concat()
    });
    assert!(received == sent, "whole, and in order");
    output.finish(|| true);
}

#[test]
fn a_reader_that_hangs_stops_neither_the_guest_nor_the_end() {
    let (guest, output, mut reader) = start_output();
    for _ in 0..1_000_000 {
        guest.0.lock().unwrap().write(DATA, b"x");
    }
    assert_eq!(guest.read(LSR) & 0x60, 0x60, "nobody waits any more");
    output.hurry();
    output.finish(|| true);
    let mut received = Vec::new();
    reader.read_to_end(&mut received).unwrap();
    assert!(received.len() >= 4096 && received.len() < 200_000);
}

#[test]
fn what_was_sent_last_is_written_before_the_end() {
    let (guest, output, mut reader) = start_output();
    for _ in 0..100_000 {
        guest.0.lock().unwrap().write(DATA, b"x");
    }
    let ending = thread::spawn(move || {
        output.hurry();
        output.finish(|| true);
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).unwrap();
    ending.join().unwrap();
    drop(guest);
    assert_eq!(received.len(), 100_000);
}
