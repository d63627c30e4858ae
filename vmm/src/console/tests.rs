//! The console's ends on real pipes.

use std::io::Read;

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

#[test]
fn output_that_nobody_reads_does_not_hold_up_the_end() {
    let (mut reader, writer) = io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let full = writer.try_clone().unwrap();
    let mut output = Output::new(writer.into(), stop.clone());
    // More than a pipe holds: when it takes no more, there is more.
    let blocked = thread::spawn(move || output.write_all(&vec![b'x'; 1 << 20]));
    let takes_more = || {
        let mut fds = [PollFd::new(&full, PollFlags::OUT)];
        poll(&mut fds, Some(&timespec(Duration::ZERO))).unwrap() != 0
    };
    while takes_more() {
        thread::sleep(Duration::from_millis(1));
    }
    drop(full);
    assert!(!blocked.is_finished(), "nobody has read");
    stop.store(true, Ordering::Release);
    blocked.join().unwrap().unwrap();
    let mut received = Vec::new();
    reader.read_to_end(&mut received).unwrap();
    assert!(!received.is_empty());
}
