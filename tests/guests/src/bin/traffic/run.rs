//! The loops.

use core::hint;

use guest::{
    clock,
    frame::{self, Check},
    memory::Region,
    net::{Card, HEADER, MOST_PAIRS, NUM_BUFFERS, Pair},
};

use crate::{
    options::{Mode, Options},
    report::{End, Report},
};

/// Bytes from one buffer to the next: header and frame, a multiple of the cache line.
const BUFFER: usize = 2048;

/// Where the frames of a broadcast go.
const BROADCAST: [u8; 6] = [0xff; 6];

/// Idle turns between two looks at the clock.
const LOOK: u64 = 64;

/// A card with frames.
#[derive(Debug)]
pub(crate) struct Run {
    card: Card,
    options: Options,
    /// Each pair's buffers; a buffer's id is its number and that of its descriptor, in both queues.
    buffers: [Option<Region>; MOST_PAIRS],
    tally: Tally,
    /// The number of the next frame to send.
    next: u64,
}

/// What was counted.
#[derive(Debug, Default)]
struct Tally {
    packets: u64,
    bytes: u64,
    bad: u64,
    other: u64,
    gaps: u64,
    /// The number that comes next if none is lost.
    expected: u64,
}

impl Run {
    /// Fills the receive queues, or the frames to send; nothing is sent yet.
    pub(crate) fn new(mut card: Card, options: Options) -> Self {
        let mut buffers = [const { None }; MOST_PAIRS];
        let mac = card.mac;
        for (pair, memory) in card.pairs.iter_mut().flatten().zip(&mut buffers) {
            let count = match options.mode {
                Mode::Tx => pair.tx.size(),
                Mode::Rx => pair.rx.size(),
                Mode::Fwd => pair.rx.size().min(pair.tx.size()),
            };
            let region = memory.insert(Region::take(usize::from(count) * BUFFER));
            for id in 0..count {
                let at = usize::from(id) * BUFFER;
                if options.mode == Mode::Tx {
                    let size = usize::from(options.size);
                    frame::write(region, at + HEADER, size, BROADCAST, mac);
                    let len = HEADER + size;
                    pair.tx
                        .describe(id, region.address() + at as u64, length(len), false);
                } else {
                    let len = length(BUFFER);
                    pair.rx
                        .describe(id, region.address() + at as u64, len, true);
                    pair.rx.post(id);
                }
            }
            pair.rx.publish();
        }
        Self {
            card,
            options,
            buffers,
            tally: Tally::default(),
            next: 0,
        }
    }

    /// Works, and reports.
    pub(crate) fn until_the_end(&mut self) -> Report {
        let kicks_before = self.card.kicks();
        let mut turns = (0, 0);
        if self.options.mode == Mode::Tx {
            self.send_first();
        }
        let ready = clock::now();
        // From the first frame that came, or from the first that was given to the device.
        let mut start = (self.options.mode == Mode::Tx).then_some(ready);
        let mut last = ready;
        let end = loop {
            let moved = self.turn();
            if moved > 0 {
                turns.0 += 1;
            } else {
                turns.1 += 1;
                hint::spin_loop();
                if turns.1 % LOOK != 0 {
                    continue;
                }
            }
            let now = clock::now();
            if moved > 0 {
                last = now;
                start.get_or_insert(now);
            }
            if self.tally.packets >= self.options.packets {
                break End::Packets;
            }
            if start.is_some_and(|start| now.wrapping_sub(start) >= self.options.cycles) {
                break End::Seconds;
            }
            if now.wrapping_sub(last) > self.options.patience {
                assert!(!self.card.is_broken(), "the card needs a reset");
                break End::Silence;
            }
        };
        self.drain();
        Report {
            kicks: self.card.kicks() - kicks_before,
            ..self.report(end, last.wrapping_sub(start.unwrap_or(ready)), turns)
        }
    }

    /// All that was counted, since the beginning.
    fn report(&self, end: End, cycles: u64, turns: (u64, u64)) -> Report {
        let sizes = |pair: &Pair| (pair.rx.size(), pair.tx.size());
        Report {
            options: self.options,
            end,
            rings: self
                .card
                .pairs
                .iter()
                .flatten()
                .next()
                .map_or((0, 0), sizes),
            event_index: self.card.event_index,
            offloads: self.card.offloads,
            packets: self.tally.packets,
            bytes: self.tally.bytes,
            cycles,
            kicks: self.card.kicks(),
            turns,
            bad: self.tally.bad,
            other: self.tally.other,
            gaps: self.tally.gaps,
        }
    }

    /// Gives the device all frames for the first time.
    fn send_first(&mut self) {
        let all = self.card.pairs.iter_mut().flatten();
        for (pair, memory) in all.zip(self.buffers.iter().flatten()) {
            for id in 0..pair.tx.size() {
                if self.next == self.options.packets {
                    break;
                }
                send(pair, memory, id, &mut self.next);
            }
            pair.tx.publish();
        }
    }

    /// One look at all rings; how many frames moved.
    fn turn(&mut self) -> u64 {
        let before = self.tally.packets + self.tally.other + self.tally.bad;
        let Self {
            card,
            options,
            buffers,
            tally,
            next,
        } = self;
        for (pair, memory) in card
            .pairs
            .iter_mut()
            .flatten()
            .zip(buffers.iter().flatten())
        {
            match options.mode {
                Mode::Tx => push(pair, memory, options, tally, next),
                Mode::Rx => pull(pair, memory, options, tally),
                Mode::Fwd => forward(pair, memory, options, tally),
            }
        }
        self.tally.packets + self.tally.other + self.tally.bad - before
    }

    /// Waits until the device has sent all that it was given, or does not go on.
    fn drain(&mut self) {
        let start = clock::now();
        for pair in self.card.pairs.iter_mut().flatten() {
            while pair.tx.outstanding() > 0 {
                if pair.tx.take().is_none() {
                    hint::spin_loop();
                }
                if clock::now().wrapping_sub(start) > self.options.patience {
                    return;
                }
            }
        }
    }
}

/// Numbers buffer `id` and gives it to the device.
fn send(pair: &mut Pair, memory: &Region, id: u16, next: &mut u64) {
    frame::set_number(memory, usize::from(id) * BUFFER + HEADER, *next);
    *next += 1;
    pair.tx.post(id);
}

/// Counts frames that were sent, and sends as many more.
fn push(pair: &mut Pair, memory: &Region, options: &Options, tally: &mut Tally, next: &mut u64) {
    for _ in 0..options.batch {
        let Some((id, _)) = pair.tx.take() else { break };
        tally.packets += 1;
        tally.bytes += u64::from(options.size);
        if *next < options.packets {
            send(pair, memory, id, next);
        }
    }
    pair.tx.publish();
}

/// Counts frames that were received, and gives their buffers back.
fn pull(pair: &mut Pair, memory: &Region, options: &Options, tally: &mut Tally) {
    for _ in 0..options.batch {
        let Some((id, len)) = pair.rx.take() else {
            break;
        };
        tally.count(memory, id, len, options);
        be_busy(options.work);
        pair.rx.post(id);
    }
    pair.rx.publish();
}

/// Spends so many cycles. Asking the clock takes some itself.
fn be_busy(cycles: u64) {
    if cycles == 0 {
        return;
    }
    let start = clock::now();
    while clock::now().wrapping_sub(start) < cycles {
        hint::spin_loop();
    }
}

/// Sends what was received; what was sent receives again.
fn forward(pair: &mut Pair, memory: &Region, options: &Options, tally: &mut Tally) {
    for _ in 0..options.batch {
        let Some((id, len)) = pair.rx.take() else {
            break;
        };
        tally.count(memory, id, len, options);
        let at = usize::from(id) * BUFFER;
        frame::swap_addresses(memory, at + HEADER);
        let buffers = memory.u16(at + NUM_BUFFERS);
        buffers.store(0, core::sync::atomic::Ordering::Relaxed);
        let address = memory.address() + at as u64;
        pair.tx.describe(id, address, len, false);
        pair.tx.post(id);
    }
    pair.tx.publish();
    for _ in 0..options.batch {
        let Some((id, _)) = pair.tx.take() else { break };
        pair.rx.post(id);
    }
    pair.rx.publish();
}

impl Tally {
    /// Counts a received frame of `len` bytes with its header.
    fn count(&mut self, memory: &Region, id: u16, len: u32, options: &Options) {
        let len = u64::from(len).saturating_sub(HEADER as u64);
        if options.check {
            let at = usize::from(id) * BUFFER + HEADER;
            let bytes = usize::try_from(len).unwrap_or(usize::MAX);
            match frame::check(memory, at, bytes, usize::from(options.size)) {
                Check::Good(number) => {
                    self.gaps += u64::from(number != self.expected);
                    self.expected = number.wrapping_add(1);
                }
                Check::Bad => {
                    self.bad += 1;
                    return;
                }
                Check::Other => {
                    self.other += 1;
                    return;
                }
            }
        }
        self.packets += 1;
        self.bytes += len;
    }
}

/// A length of ours as the ring has it: far below the limit.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
