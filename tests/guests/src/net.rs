//! A virtio-net device (virtio 1.2, 5.1) with one or several queue pairs, driven by polling.

use core::hint;

use crate::{
    clock,
    cmdline::Cmdline,
    memory::Region,
    mmio::{Registers, register, status},
    ring::Queue,
};

/// Device ID of a network card.
pub const NETWORK_CARD: u32 = 1;

/// The configuration has the address.
pub const MAC: u64 = 1 << 5;
/// There is a control queue.
pub const CTRL_VQ: u64 = 1 << 17;
/// There are several queue pairs.
pub const MQ: u64 = 1 << 22;
/// Notifications go by index.
pub const EVENT_IDX: u64 = 1 << 29;
/// This is virtio 1.
pub const VERSION_1: u64 = 1 << 32;

/// What a driver that leaves checksums and segmentation to the card negotiates: CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6,
/// HOST_TSO4, HOST_TSO6, MRG_RXBUF and HOST_USO. Datagrams are not to be put together (no GUEST_USO): a buffer holds one
/// frame.
pub const OFFLOADS: u64 = 1 | 1 << 1 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12 | 1 << 15 | 1 << 56;

/// Offset of `max_virtqueue_pairs` in the configuration.
pub const MAX_PAIRS: u64 = 8;

/// Command VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: class, command, number of pairs (5.1.6.5.5).
const SET_PAIRS: [u8; 2] = [4, 0];
/// What the device answers when it is done.
const OK: u8 = 0;
/// Where it answers, behind the command.
const ANSWER: usize = 8;

/// Bytes of the header before every frame, as VERSION_1 has it.
pub const HEADER: usize = 12;
/// Offset of `num_buffers` in it: the device sets it, and wants to read 0.
pub const NUM_BUFFERS: usize = 10;

/// Most queue pairs that this driver has memory for.
pub const MOST_PAIRS: usize = 4;

/// How long the device may take for a command, in cycles: seconds.
const PATIENCE: u64 = 20_000_000_000;

/// One queue pair.
#[derive(Debug)]
pub struct Pair {
    /// What is received.
    pub rx: Queue,
    /// What is sent.
    pub tx: Queue,
}

/// A network card in use.
#[derive(Debug)]
pub struct Card {
    registers: Registers,
    /// The queue pairs, as many as were asked for.
    pub pairs: [Option<Pair>; MOST_PAIRS],
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Whether notifications go by index (VIRTIO_F_EVENT_IDX).
    pub event_index: bool,
    /// Those of [`OFFLOADS`] that are in use.
    pub offloads: u64,
}

impl Card {
    /// Sets up the first network card of the command line, with so many queue pairs of at most `size` entries, and
    /// without offloads.
    ///
    /// # Panics
    /// There is none, or it has not what is needed: the panic says what.
    #[must_use]
    pub fn new(line: Cmdline<'_>, pairs: u16, size: u16) -> Self {
        Self::accepting(0, line, pairs, size)
    }

    /// The same with those of the feature bits `accepted` that the card offers.
    ///
    /// # Panics
    /// There is none, or it has not what is needed: the panic says what.
    #[must_use]
    pub fn accepting(accepted: u64, line: Cmdline<'_>, pairs: u16, size: u16) -> Self {
        let all = line.devices().filter_map(|it| Registers::at(it.base));
        let mut cards = all.filter(|it| it.read(register::DEVICE_ID) == NETWORK_CARD);
        let Some(registers) = cards.next() else {
            panic!("the command line names no network card (virtio_mmio.device=)");
        };
        assert!(
            (1..=MOST_PAIRS).contains(&usize::from(pairs)),
            "pairs={pairs} is not from 1 to {MOST_PAIRS}"
        );
        let features = negotiate(registers, pairs > 1, accepted);
        let event_index = features & EVENT_IDX != 0;
        let mut mac = [0; 6];
        for (i, byte) in (0..).zip(&mut mac) {
            *byte = registers.config(i);
        }
        let queue = |index| Queue::new(registers, index, size, event_index);
        let mut card = Self {
            registers,
            pairs: [const { None }; MOST_PAIRS],
            mac,
            event_index,
            offloads: features & OFFLOADS,
        };
        for (i, pair) in (0..pairs).zip(&mut card.pairs) {
            *pair = Some(Pair {
                rx: queue(2 * i),
                tx: queue(2 * i + 1),
            });
        }
        if pairs > 1 {
            let most =
                u16::from_le_bytes([MAX_PAIRS, MAX_PAIRS + 1].map(|it| registers.config(it)));
            assert!(pairs <= most, "pairs={pairs}, the card has {most}");
            let control = queue(2 * most);
            card.start();
            set_pairs(control, pairs);
        } else {
            card.start();
        }
        card
    }

    fn start(&self) {
        let driver = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.registers
            .write(register::STATUS, driver | status::DRIVER_OK);
    }

    /// Whether the device gave up on this driver.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.registers.read(register::STATUS) & status::NEEDS_RESET != 0
    }

    /// Notifications sent, by all queues of the pairs.
    #[must_use]
    pub fn kicks(&self) -> u64 {
        let pairs = self.pairs.iter().flatten();
        pairs.map(|it| it.rx.kicks() + it.tx.kicks()).sum()
    }
}

/// Resets the device and agrees on features (3.1.1).
fn negotiate(registers: Registers, several: bool, accepted: u64) -> u64 {
    registers.write(register::STATUS, 0);
    registers.write(register::STATUS, status::ACKNOWLEDGE);
    let driver = status::ACKNOWLEDGE | status::DRIVER;
    registers.write(register::STATUS, driver);
    let offered = registers.device_features();
    let mut needed = VERSION_1 | MAC;
    if several {
        needed |= CTRL_VQ | MQ;
    }
    assert!(
        offered & needed == needed,
        "the card offers the features {offered:#x}, not all of {needed:#x}"
    );
    let features = needed | offered & (EVENT_IDX | accepted);
    registers.set_driver_features(features);
    registers.write(register::STATUS, driver | status::FEATURES_OK);
    let accepted = registers.read(register::STATUS) & status::FEATURES_OK != 0;
    assert!(accepted, "the card refuses the features {features:#x}");
    features
}

/// Tells the device how many pairs are used.
fn set_pairs(mut control: Queue, pairs: u16) {
    let memory = Region::take(16);
    let [low, high] = pairs.to_le_bytes();
    memory.write(0, &[SET_PAIRS[0], SET_PAIRS[1], low, high]);
    memory.write(ANSWER, &[0xff]);
    let answer = (memory.address() + ANSWER as u64, 1);
    control.describe_exchange((memory.address(), 4), answer);
    control.post(0);
    control.publish();
    let start = clock::now();
    while control.take().is_none() {
        let late = clock::now().wrapping_sub(start) > PATIENCE;
        assert!(
            !late,
            "the card does not answer the command for {pairs} pairs"
        );
        hint::spin_loop();
    }
    let answer = memory
        .u8(ANSWER)
        .load(core::sync::atomic::Ordering::Relaxed);
    assert!(answer == OK, "the card refused {pairs} pairs: {answer}");
}
