//! The 16550A serial port of the console, on vm-superio's register model.
//!
//! Output goes byte by byte to a [`SerialOutput`]. One that is slow makes the transmitter look busy, as a slow line
//! does: its two bits of the line status are clear, and its interrupt is withheld. vm-superio's transmitter is always
//! empty, so this is done in front of it: it does not see that the driver has enabled that interrupt until it may come.
//!
//! Input is fed by whoever owns its source, no more than
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

/// How many bytes a driver may send at once when it finds the transmitter empty: a 16550A's FIFO has 16,
/// and what drivers take for its larger brothers has up to 64.
pub const TRANSMIT_FIFO: usize = 64;

/// Where the guest's output goes. Called on a vCPU's thread, with the port locked.
///
/// Whoever is not always ready calls [`SerialPort::output_is_ready`] when that changes.
pub trait SerialOutput: Send {
    /// Takes a byte, also when it is not ready: a driver need not look. May wait, a bounded time.
    fn send(&mut self, byte: u8);

    /// Whether it takes [`TRANSMIT_FIFO`] bytes more at once.
    fn is_ready(&mut self) -> bool {
        true
    }
}

/// Always ready. What can't be written is lost, as on a wire that nobody listens to.
impl<W: Write + Send> SerialOutput for W {
    fn send(&mut self, byte: u8) {
        let _ = self.write_all(&[byte]).and_then(|()| self.flush());
    }
}

/// The output as vm-superio wants it.
struct Line(Box<dyn SerialOutput>);

impl Write for Line {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        data.iter().for_each(|byte| self.0.send(*byte));
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
    uart: Serial<Irq, Drained, Line>,
    /// The interrupts that the driver has enabled. `uart` knows of the transmitter's only while that is not busy.
    enabled: u8,
    /// The output was not ready when it was last asked.
    busy: bool,
}

const DATA: u8 = 0;
/// Interrupt enable register, its bits, and that of the transmitter (THR empty).
const IER: u8 = 1;
const IER_BITS: u8 = 0x0f;
const IER_THR_EMPTY: u8 = 1 << 1;
/// Line control register, and its bit that puts the divisor in place of data and interrupt enable register.
const LCR: u8 = 3;
const LCR_DLAB: u8 = 1 << 7;
/// Line status register, and its bits for an empty transmitter: its holding register, and all of it.
const LSR: u8 = 5;
const LSR_EMPTY: u8 = 1 << 5 | 1 << 6;
/// Modem control register, and its bits for Request To Send and for loopback, in which what the
/// guest sends is its input.
const MCR: u8 = 4;
const MCR_RTS: u8 = 1 << 1;
const MCR_LOOP: u8 = 1 << 4;

impl SerialPort {
    /// A port that raises `irq` (for an irqfd; edge) and gives what the guest sends to `output`,
    /// on the vCPU's thread. `on_room` is called whenever the guest has read all input, or has
    /// begun to listen.
    pub fn new(irq: EventFd, on_room: RoomHandler, output: Box<dyn SerialOutput>) -> Self {
        Self {
            uart: Serial::with_events(Irq(irq), Drained(on_room), Line(output)),
            enabled: 0,
            busy: false,
        }
    }

    /// The output may have become ready: if so, the transmitter is empty, and the driver gets its interrupt.
    pub fn output_is_ready(&mut self) {
        let busy = !self.uart.writer_mut().0.is_ready();
        if busy != self.busy {
            self.busy = busy;
            self.enable();
        }
    }

    /// Tells the UART which interrupts are wanted. It raises those whose reason is there.
    fn enable(&mut self) {
        let withheld = if self.busy { IER_THR_EMPTY } else { 0 };
        // Fails only when the interrupt can't be raised.
        let _ = self.uart.write(IER, self.enabled & !withheld);
    }

    fn read_register(&mut self, register: u8) -> u8 {
        match register {
            IER if !self.divisor_is_shown() => self.enabled,
            LSR => {
                self.output_is_ready();
                let hidden = if self.busy { LSR_EMPTY } else { 0 };
                self.uart.read(LSR) & !hidden
            }
            _ => self.uart.read(register),
        }
    }

    fn write_register(&mut self, register: u8, value: u8) {
        if register == IER && !self.divisor_is_shown() {
            self.enabled = value & IER_BITS;
            self.enable();
            return;
        }
        // Fails only when the interrupt can't be raised.
        let _ = self.uart.write(register, value);
        match register {
            // It may have been one too many.
            DATA => self.output_is_ready(),
            MCR if self.room() > 0 => (self.uart.events().0)(),
            _ => {}
        }
    }

    fn divisor_is_shown(&mut self) -> bool {
        self.uart.read(LCR) & LCR_DLAB != 0
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
                *byte = self.read_register(register);
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (&byte, i) in data.iter().zip(0u64..) {
            if let Ok(register) = u8::try_from(offset.saturating_add(i)) {
                self.write_register(register, byte);
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

    const DATA: u64 = super::DATA as u64;
    const IER: u64 = super::IER as u64;
    const IIR: u64 = 2;
    const LCR: u64 = super::LCR as u64;
    const MCR: u64 = super::MCR as u64;
    const LSR: u64 = super::LSR as u64;

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

    /// Takes as many bytes as it has room for.
    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<usize>>);

    impl SerialOutput for Slow {
        fn send(&mut self, _: u8) {
            let mut room = self.0.lock().unwrap();
            *room = room.saturating_sub(1);
        }

        fn is_ready(&mut self) -> bool {
            *self.0.lock().unwrap() > 0
        }
    }

    #[test]
    fn a_slow_output_makes_the_transmitter_busy_and_raises_its_interrupt_when_it_is_ready() {
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let slow = Slow::default();
        *slow.0.lock().unwrap() = 2;
        let output = Box::new(slow.clone());
        let mut port = SerialPort::new(irq.try_clone().unwrap(), Box::new(|| {}), output);
        port.write(IER, &[2]);
        assert!(irq.read().is_ok(), "it is empty from the start");
        assert_eq!(read(&mut port, IIR) & 0x0f, 2);
        port.write(DATA, b"a");
        assert!(irq.read().is_ok());
        assert_eq!(read(&mut port, IIR) & 0x0f, 2);
        assert_eq!(read(&mut port, LSR), 0x60);
        port.write(DATA, b"b");
        // Whether that one comes is open; from now on there is none.
        let _ = (irq.read(), read(&mut port, IIR));
        for _ in 0..3 {
            assert_eq!(read(&mut port, LSR), 0, "busy");
            assert_eq!(read(&mut port, IER), 2, "as the driver has set it");
            port.write(IER, &[0]);
            port.write(IER, &[2]);
            port.write(DATA, b"c");
            port.output_is_ready();
            assert!(irq.read().is_err());
            assert_eq!(read(&mut port, IIR) & 0x0f, 1, "nothing to report");
        }
        *slow.0.lock().unwrap() = 1;
        port.output_is_ready();
        assert!(irq.read().is_ok(), "empty again");
        assert_eq!(read(&mut port, IIR) & 0x0f, 2);
        assert_eq!(read(&mut port, LSR), 0x60);
        port.output_is_ready();
        assert!(irq.read().is_err(), "once is enough");
    }

    #[test]
    fn the_divisor_hides_the_interrupt_enable_register() {
        let (mut port, irq, _drained, sink) = port();
        port.write(IER, &[1]);
        port.write(LCR, &[0x83]);
        port.write(IER, &[2]);
        port.write(DATA, &[12]);
        assert_eq!((read(&mut port, DATA), read(&mut port, IER)), (12, 2));
        assert!(irq.read().is_err());
        port.write(LCR, &[3]);
        assert_eq!(read(&mut port, IER), 1);
        assert!(sink.0.lock().unwrap().is_empty());
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
