#![no_std]
#![no_main]
//! Does what a driver must not do, entry by entry of `docs/catalogue.md`, and shows after each that the device still works.
//!
//! Each entry is done in one or several ways. What must come of a way is either that the device asks for a reset, or that
//! it goes on; either way frames then go to the far end of the wire and come back, every byte as it was: without a
//! reset where the device goes on, and after one in any case. The far end is to send back the frames of
//! [`guest::frame`], addresses swapped, and nothing else. Frames that are sent besides have the EtherType 0x88b6 and
//! bytes 0x5a.
//!
//! | word | meaning |
//! |---|---|
//! | `seed=N` | entries at random, for ever; without it each once, in order, and then the machine is switched off |
//! | `only=N` | only this entry |
//! | `retry=MS` | a frame that did not come back for so long is sent again; without it that is an error |
//! | `patience=SECONDS` | how long to wait for whatever must happen; 20 if not given |
//! | `tsc-khz=N` | cycles of the TSC a millisecond, where KVM's clock does not tell |
//!
//! It prints `ready`, a line for each entry, and at the end `done` with the number of entries and of frames; or
//! `{"error":"..."}`.

mod entries;
mod exchange;
mod options;
mod packet;
mod rig;

use core::fmt::Write;

use guest::{cmdline::Cmdline, power, serial::Serial};

use entries::{ENTRIES, Entry, Must};
use options::Options;
use rig::Rig;

guest::main!(hostile);

fn hostile(line: Cmdline<'_>) -> ! {
    let options = Options::new(line);
    let mut serial = Serial::new();
    let mut rig = Rig::new(line, options);
    rig.start();
    rig.exchange();
    // The serial port takes everything.
    let _ = writeln!(serial, "ready");
    let only = |it: &&Entry| options.only.is_none_or(|number| it.number == number);
    if let Some(seed) = options.seed {
        let mut state = seed | 1;
        loop {
            let wanted = random(&mut state) % ENTRIES.len() as u64;
            let entry = (0..).zip(ENTRIES).find(|&(i, _)| i == wanted);
            if let Some((_, entry)) = entry.filter(|(_, entry)| only(entry)) {
                run(&mut rig, entry, &mut serial);
            }
        }
    }
    let mut count = 0;
    for entry in ENTRIES.iter().filter(only) {
        count += u16::from(run(&mut rig, entry, &mut serial));
    }
    let frames = rig.frames();
    let _ = writeln!(serial, "done: {count} entries, {frames} frames");
    power::off()
}

/// xorshift64 (Marsaglia 2003).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Does an entry in all its ways, with a device that works; it does so afterwards. False: it has none here.
fn run(rig: &mut Rig, entry: &Entry, serial: &mut Serial) -> bool {
    let (mut ways, mut resets) = (0, 0);
    loop {
        rig.now_doing(entry.number, ways);
        let Some(must) = (entry.attack)(rig, ways) else {
            break;
        };
        match must {
            Must::Reset => rig.wait_until_broken(),
            Must::ResetOnReceive => rig.provoke_until_broken(),
            Must::GoOn => {
                rig.assert_whole();
                rig.exchange();
            }
            Must::Whatever => {}
        }
        resets += u16::from(rig.is_broken());
        rig.start();
        rig.exchange();
        ways += 1;
    }
    let Entry { number, what, .. } = entry;
    let _ = match (ways, resets) {
        (0, _) => return false,
        (1, 1) => writeln!(
            serial,
            "entry {number}: {what}: device asked for reset; frames exact"
        ),
        (1, 0) => writeln!(serial, "entry {number}: {what}: survived; frames exact"),
        (all, resets) => writeln!(
            serial,
            "entry {number}: {what}: {all} ways, device asked for reset in {resets}, survived {}; frames exact",
            all - resets
        ),
    };
    true
}
