#![no_std]
#![no_main]
//! Sends, receives or forwards frames as fast as it can, reports on the serial port, and switches the machine off.
//!
//! The command line says what:
//!
//! | word | meaning |
//! |---|---|
//! | `mode=tx`, `rx` or `fwd` | send; receive; send back what is received, addresses swapped |
//! | `size=BYTES` | of a frame without FCS, 60 to 1514; 64 if not given |
//! | `packets=N` | end after so many |
//! | `seconds=N` | end after so many, counted from the first frame; 10 if neither is given |
//! | `pairs=N` | queue pairs, 1 to 4; 1 if not given |
//! | `ring=N` | entries of a queue, a power of two; 1024 if not given, or fewer if the card has fewer |
//! | `batch=N` | most frames between two looks at the other ring; 256 if not given |
//! | `check=1` | receiving: check every byte of every frame |
//! | `work=NANOSECONDS` | receiving: be busy for so long with each frame |
//! | `offloads=1` | leave checksums and segmentation to the card, if it offers that |
//! | `patience=SECONDS` | end when no frame comes or goes for so long; 10 if not given |
//! | `tsc-khz=N` | cycles of the TSC a millisecond, where KVM's clock does not tell |
//!
//! It prints `ready` when the first frame can come or go, and at the end one line of JSON: a report, or
//! `{"error":"..."}`.

mod options;
mod report;
mod run;

use core::fmt::Write;

use guest::{
    cmdline::Cmdline,
    net::{self, Card},
    power,
    serial::Serial,
};

use options::Options;
use run::Run;

guest::main!(traffic);

fn traffic(line: Cmdline<'_>) -> ! {
    let options = Options::new(line);
    let accepted = if options.offloads { net::OFFLOADS } else { 0 };
    let card = Card::accepting(accepted, line, options.pairs, options.ring);
    let mut serial = Serial::new();
    let mut run = Run::new(card, options);
    // The serial port takes everything.
    let _ = writeln!(serial, "ready");
    let report = run.until_the_end();
    let _ = writeln!(serial, "{report}");
    power::off()
}
