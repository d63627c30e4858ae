//! The first serial port (16550): text out.

use core::{fmt, hint};

use crate::port;

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = DATA + 5;
/// The transmitter holding register is empty.
const THR_EMPTY: u8 = 1 << 5;

/// COM1, used without interrupts and as firmware left it.
#[derive(Debug, Default)]
pub struct Serial;

impl Serial {
    /// The port.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while port::read(LINE_STATUS) & THR_EMPTY == 0 {
                hint::spin_loop();
            }
            port::write(DATA, byte);
        }
        Ok(())
    }
}
