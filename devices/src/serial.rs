//! The 16550A serial port of the console, on vm-superio's register model.
//!
//! Output goes byte by byte to a [`Write`]; input is fed by whoever owns its source, no more than
//! the FIFO takes, and is told when there may be room again: nothing that is
//! pasted or piped in gets lost. Nor does what comes before the guest listens: a driver empties
//! the FIFO when it starts, so the port takes input only while Request To Send is on, as a sender with
//! RTS/CTS flow control does (Linux sets it when the port is opened, after its probing and
//! emptying; DTR it sets long before).

use std::{
    fmt,
    io::{self, Write},
};

use vm_superio::{Serial, Trigger, serial::SerialEvents};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;

/// Called on a vCPU thread when there may be room for input; must not block.
pub type RoomHandler = Box<dyn Fn() + Send>;

/// Size in bytes of the register block.
pub const SERIAL_SIZE: u64 = 8;

struct Irq(EventFd);

impl Trigger for Irq {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Tells the feeder of the input that the guest has read all of it.
struct Drained(RoomHandler);

impl SerialEvents for Drained {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        (self.0)();
    }
}

/// COM1 as a guest sees it.
pub struct SerialPort {
    uart: Serial<Irq, Drained, Box<dyn Write + Send>>,
}

/// Modem control register, and its bits for Request To Send and for loopback, in which what the
/// guest sends is its input.
const MCR: u8 = 4;
const MCR_RTS: u8 = 1 << 1;
const MCR_LOOP: u8 = 1 << 4;

impl SerialPort {
    /// A port that raises `irq` (for an irqfd; edge) and writes what the guest sends to `output`,
    /// on the vCPU's thread. `on_room` is called whenever the guest has read all input, or has
    /// begun to listen.
    pub fn new(irq: EventFd, on_room: RoomHandler, output: Box<dyn Write + Send>) -> Self {
        Self {
            uart: Serial::with_events(Irq(irq), Drained(on_room), output),
        }
    }

    /// How many bytes [`feed`](Self::feed) would take now.
    pub fn room(&self) -> usize {
        match self.uart.state().modem_control & (MCR_RTS | MCR_LOOP) {
            MCR_RTS => self.uart.fifo_capacity(),
            _ => 0,
        }
    }

    /// Hands input to the guest; returns how many bytes of it fitted.
    pub fn feed(&mut self, input: &[u8]) -> usize {
        let input = input
            .get(..self.room().min(input.len()))
            .unwrap_or_default();
        // Fails only when the interrupt can't be raised, which the guest's next look at the line
        // status makes good.
        self.uart.enqueue_raw_bytes(input).unwrap_or(0)
    }
}

impl BusDevice for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // Wider accesses are split by the ISA bus into single bytes.
        for (byte, i) in data.iter_mut().zip(0u64..) {
            if let Ok(register) = u8::try_from(offset.saturating_add(i)) {
                *byte = self.uart.read(register);
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (&byte, i) in data.iter().zip(0u64..) {
            if let Ok(register) = u8::try_from(offset.saturating_add(i)) {
                // What can't be written is lost, as on a wire that nobody listens to; the output's
                // owner reports it. A line per byte here would flood the log.
                let _ = self.uart.write(register, byte);
                if register == MCR && self.room() > 0 {
                    (self.uart.events().0)();
                }
            }
        }
    }
}

impl fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SerialPort")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    const DATA: u64 = 0;
    const IER: u64 = 1;
    const MCR: u64 = super::MCR as u64;
    const LSR: u64 = 5;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(data)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn port() -> (SerialPort, EventFd, EventFd, Sink) {
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let drained = EventFd::new(EFD_NONBLOCK).unwrap();
        let signal = drained.try_clone().unwrap();
        let sink = Sink::default();
        let port = SerialPort::new(
            irq.try_clone().unwrap(),
            Box::new(move || signal.write(1).unwrap()),
            Box::new(sink.clone()),
        );
        (port, irq, drained, sink)
    }

    fn read(port: &mut SerialPort, register: u64) -> u8 {
        let mut data = [0];
        port.read(register, &mut data);
        data[0]
    }

    #[test]
    fn writes_output_in_order() {
        let (mut port, _irq, _drained, sink) = port();
        for byte in b"hello" {
            port.write(DATA, &[*byte]);
        }
        assert_eq!(*sink.0.lock().unwrap(), b"hello");
    }

    #[test]
    fn takes_no_more_input_than_fits_and_says_when_it_is_read() {
        let (mut port, irq, drained, _sink) = port();
        assert_eq!(port.room(), 0, "nobody listens");
        port.write(IER, &[1]);
        for probing in [0, 0x1a, 9] {
            port.write(MCR, &[probing]);
            assert_eq!(port.room(), 0, "the driver still probes");
        }
        port.write(MCR, &[0x0b]);
        assert!(drained.read().is_ok(), "somebody listens");
        let room = port.room();
        let input = vec![b'x'; room + 10];
        assert_eq!(port.feed(&input), room);
        assert_eq!(port.room(), 0);
        assert_eq!(port.feed(&input), 0);
        assert!(irq.read().is_ok(), "received data interrupt");
        assert!(drained.read().is_err(), "nothing was read yet");
        for _ in 0..room {
            assert_eq!(read(&mut port, LSR) & 1, 1);
            assert_eq!(read(&mut port, DATA), b'x');
        }
        assert!(drained.read().is_ok());
        assert_eq!(read(&mut port, LSR) & 1, 0);
        assert_eq!(port.room(), room);
    }

    #[test]
    fn odd_accesses_do_no_harm() {
        let (mut port, _irq, _drained, sink) = port();
        let mut wide = [0; 8];
        port.read(4, &mut wide);
        port.read(u64::MAX - 3, &mut wide);
        port.write(300, &[1, 2, 3]);
        assert!(sink.0.lock().unwrap().is_empty());
    }
}
