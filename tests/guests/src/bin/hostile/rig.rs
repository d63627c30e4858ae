//! A network card that is driven badly, reset, and driven again, always in the same memory.

use core::{hint, sync::atomic::Ordering};

use guest::{
    clock,
    cmdline::Cmdline,
    memory::Region,
    mmio::{Registers, register, status},
    net::{CTRL_VQ, EVENT_IDX, MAX_PAIRS, MQ, NETWORK_CARD, Pair, VERSION_1},
    ring::{Queue, Rings},
};

use crate::options::Options;

/// Entries of a queue.
pub(crate) const SIZE: u16 = 256;
/// Entries of the control queue.
const CONTROL_SIZE: u16 = 64;
/// Receive buffers of a pair, and their size.
pub(crate) const BUFFERS: u16 = 64;
/// Bytes of a receive buffer.
pub(crate) const BUFFER: usize = 2048;
/// Bytes of the memory for what is sent, and for tables.
pub(crate) const SEND: usize = 128 << 10;

/// The card and all memory that it is told of.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) registers: Registers,
    pub(crate) options: Options,
    /// Feature bits that the card offers.
    pub(crate) offered: u64,
    /// How many pairs it has, at most 2 of which are used here.
    pub(crate) most_pairs: u16,
    pub(crate) mac: [u8; 6],
    /// Memory of the queues: receive and transmit of the first pair, then of the second; then the control queue.
    pub(crate) rings: [Rings; 5],
    pub(crate) first: Pair,
    pub(crate) second: Option<Pair>,
    pub(crate) control: Queue,
    /// Receive buffers, by pair.
    pub(crate) receive: [Region; 2],
    /// What is sent.
    pub(crate) send: Region,
    /// Indirect tables.
    pub(crate) table: Region,
    /// Commands of the control queue.
    pub(crate) command: Region,
    /// The number of the next frame.
    pub(crate) next: u64,
    /// What is being done: entry and way.
    doing: (u8, u16),
}

impl Rig {
    /// Finds the card.
    ///
    /// # Panics
    /// There is none that works.
    pub(crate) fn new(line: Cmdline<'_>, options: Options) -> Self {
        let all = line.devices().filter_map(|it| Registers::at(it.base));
        let mut cards = all.filter(|it| it.read(register::DEVICE_ID) == NETWORK_CARD);
        let Some(registers) = cards.next() else {
            panic!("the command line names no network card (virtio_mmio.device=)");
        };
        registers.write(register::STATUS, 0);
        let offered = registers.device_features();
        assert!(offered & CTRL_VQ != 0, "the card has no control queue");
        let mut most_pairs = 1;
        if offered & MQ != 0 {
            let bytes = [MAX_PAIRS, MAX_PAIRS + 1].map(|it| registers.config(it));
            most_pairs = u16::from_le_bytes(bytes);
        }
        let rings = [SIZE, SIZE, SIZE, SIZE, CONTROL_SIZE].map(Rings::take);
        let [rx, tx, _, _, control] = rings;
        let queue = |rings, index| Queue::on(rings, registers, index, true);
        Self {
            registers,
            options,
            offered,
            most_pairs,
            mac: core::array::from_fn(|i| registers.config(i as u64)),
            rings,
            first: Pair {
                rx: queue(rx, 0),
                tx: queue(tx, 1),
            },
            second: None,
            control: queue(control, 2 * most_pairs),
            receive: core::array::from_fn(|_| Region::take(usize::from(BUFFERS) * BUFFER)),
            send: Region::take(SEND),
            table: Region::take(SEND),
            command: Region::take(8192),
            next: 0,
            doing: (0, 0),
        }
    }

    /// Resets the card and makes it work, with all that it offers.
    pub(crate) fn start(&mut self) {
        self.start_with(self.offered);
        self.post_buffers();
    }

    /// The same with these features, and without receive buffers.
    pub(crate) fn start_with(&mut self, features: u64) {
        assert!(self.negotiate(features), "the card refuses {features:#x}");
        self.set_queues_up(features);
        self.driver_ok();
        self.assert_whole();
    }

    /// Resets the card and agrees on features; false if it does not.
    pub(crate) fn negotiate(&mut self, features: u64) -> bool {
        let registers = self.registers;
        registers.write(register::STATUS, 0);
        let state = registers.read(register::STATUS);
        assert!(state == 0, "status {state:#x} after the reset");
        let mut steps = status::ACKNOWLEDGE;
        registers.write(register::STATUS, steps);
        steps |= status::DRIVER;
        registers.write(register::STATUS, steps);
        registers.set_driver_features(features);
        steps |= status::FEATURES_OK;
        registers.write(register::STATUS, steps);
        registers.read(register::STATUS) & status::FEATURES_OK != 0
    }

    /// Tells the card, which knows the features, where the queues are.
    pub(crate) fn set_queues_up(&mut self, features: u64) {
        let (registers, event_index) = (self.registers, features & EVENT_IDX != 0);
        let queue = |rings: Rings, index| {
            rings.clear();
            Queue::on(rings, registers, index, event_index)
        };
        let [rx, tx, rx2, tx2, control] = self.rings;
        self.first = Pair {
            rx: queue(rx, 0),
            tx: queue(tx, 1),
        };
        let several = features & MQ != 0 && self.most_pairs > 1;
        self.second = several.then(|| Pair {
            rx: queue(rx2, 2),
            tx: queue(tx2, 3),
        });
        if features & CTRL_VQ != 0 {
            // 5.1.2: behind the only pair where several were not agreed upon.
            let index = if features & MQ == 0 {
                2
            } else {
                2 * self.most_pairs
            };
            self.control = queue(control, index);
        }
    }

    /// Resets one queue, which has to be done at once.
    pub(crate) fn reset_queue(&self, index: u32) {
        let registers = self.registers;
        registers.write(register::QUEUE_SEL, index);
        registers.write(register::QUEUE_RESET, 1);
        for offset in [register::QUEUE_RESET, register::QUEUE_READY] {
            if registers.read(offset) != 0 {
                self.fail("a queue is not reset");
            }
        }
    }

    /// Gives the card the queues of the first pair again, which were reset.
    pub(crate) fn enable_first_pair(&mut self) {
        let (registers, event_index) = (self.registers, self.offered & EVENT_IDX != 0);
        let [rx, tx, ..] = self.rings;
        let [rx, tx] = [(rx, 0), (tx, 1)].map(|(rings, index)| {
            rings.clear();
            Queue::on(rings, registers, index, event_index)
        });
        self.first = Pair { rx, tx };
        Self::post_to(&mut self.first, self.receive[0]);
    }

    /// Tells the card to begin.
    pub(crate) fn driver_ok(&self) {
        let ready = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        self.registers.write(register::STATUS, ready);
    }

    /// Gives the card all receive buffers.
    pub(crate) fn post_buffers(&mut self) {
        let pairs = [Some(&mut self.first), self.second.as_mut()];
        for (pair, memory) in pairs.into_iter().flatten().zip(self.receive) {
            Self::post_to(pair, memory);
        }
    }

    fn post_to(pair: &mut Pair, memory: Region) {
        for id in 0..BUFFERS {
            let at = usize::from(id) * BUFFER;
            let address = memory.address() + at as u64;
            pair.rx.describe(id, address, 2048, true);
            pair.rx.post(id);
        }
        pair.rx.publish();
    }

    /// Remembers what is being done, for errors.
    pub(crate) fn now_doing(&mut self, entry: u8, way: u16) {
        self.doing = (entry, way);
    }

    /// How many frames went to the far end and back.
    pub(crate) fn frames(&self) -> u64 {
        self.next
    }

    /// Whether the device asks for a reset.
    pub(crate) fn is_broken(&self) -> bool {
        self.registers.read(register::STATUS) & status::NEEDS_RESET != 0
    }

    /// # Panics
    /// It does.
    pub(crate) fn assert_whole(&self) {
        if self.is_broken() {
            self.fail("the device asks for a reset");
        }
    }

    /// Waits until it does.
    pub(crate) fn wait_until_broken(&self) {
        let mut watch = self.watch();
        while !self.is_broken() {
            watch.turn(self, "the device does not ask for a reset");
        }
    }

    /// # Panics
    /// Always, with what is wrong and where.
    pub(crate) fn fail(&self, what: &str) -> ! {
        let (entry, way) = self.doing;
        panic!("entry {entry}, way {way}: {what}")
    }

    /// Begins to wait.
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            start: clock::now(),
        }
    }

    /// Waits until the device is done with all that it was given to send.
    pub(crate) fn wait_sent(&mut self) {
        let mut watch = self.watch();
        while self.first.tx.outstanding() > 0 {
            if self.first.tx.take().is_none() {
                watch.turn(self, "what was given to send does not come back");
            }
        }
    }

    /// Lets the device send the chain that begins at descriptor `id`.
    pub(crate) fn offer(&mut self, id: u16) {
        self.first.tx.post(id);
        self.first.tx.publish();
    }

    /// Has the device carry out the command in `bytes`, which must be no more than 4096; its answer.
    pub(crate) fn command(&mut self, bytes: &[u8]) -> u8 {
        /// Where the answer is.
        const ANSWER: usize = 4096;
        let memory = self.command;
        memory.write(0, bytes);
        memory.write(ANSWER, &[0xff]);
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        let answer = (memory.address() + ANSWER as u64, 1);
        self.control
            .describe_exchange((memory.address(), len), answer);
        self.control.post(0);
        self.control.publish();
        let mut watch = self.watch();
        while self.control.take().is_none() {
            watch.turn(self, "a command is not answered");
        }
        memory.u8(ANSWER).load(Ordering::Relaxed)
    }
}

/// Features without which nothing works here.
pub(crate) const NEEDED: u64 = VERSION_1;

/// Somebody waits.
#[derive(Debug)]
pub(crate) struct Watch {
    start: u64,
}

impl Watch {
    /// Cycles since the beginning.
    pub(crate) fn elapsed(&self) -> u64 {
        clock::now().wrapping_sub(self.start)
    }

    /// One more turn.
    ///
    /// # Panics
    /// It lasts too long: `what` is wrong.
    pub(crate) fn turn(&mut self, rig: &Rig, what: &str) {
        hint::spin_loop();
        if self.elapsed() > rig.options.patience {
            rig.fail(what);
        }
    }
}
