//! A panic is a line on the serial port and the end.

use core::{fmt::Write, panic::PanicInfo};

use crate::{power, serial::Serial};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let place = info.location().map_or(0, |it| it.line());
    let file = info.location().map_or("?", |it| it.file());
    let mut serial = Serial::new();
    // The serial port takes everything.
    let _ = writeln!(
        serial,
        "{{\"error\":\"{} ({file}:{place})\"}}",
        info.message()
    );
    power::off()
}
