//! A guest with a card of several queue pairs, each with a wire of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use devices::{
    GuestRam,
    testing::{Buffer, DriverQueue, TestDriver, ram, wait_for},
    virtio::net::{NetBackend, NetConfig, NetControl, NetDevice, RateLimit, loopback::Loopback},
};

use crate::guest::*;

pub(crate) const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
pub(crate) const MQ: u64 = 1 << 22;

/// What the device answers to a command.
pub(crate) const OK: u8 = 0;
pub(crate) const ERR: u8 = 1;

/// Bytes of each buffer, and buffers posted to each receive queue.
pub(crate) const BUFFER: u32 = 4096;
const POSTED: usize = 32;

/// One pair's rings and buffers.
pub(crate) struct Pair {
    pub(crate) rx: DriverQueue,
    pub(crate) tx: DriverQueue,
    pub(crate) buffers: HashMap<u32, u64>,
    tx_memory: u64,
    next: u64,
}

pub(crate) struct PairsGuest<W = Loopback> {
    pub(crate) driver: TestDriver,
    pub(crate) wires: Vec<W>,
    pub(crate) control: NetControl,
    pub(crate) faults: Arc<Mutex<Vec<String>>>,
    pub(crate) features: u64,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) ctrl: DriverQueue,
    ctrl_memory: u64,
    /// The card's queue that gets what is sent on each wire.
    pub(crate) arrives: Vec<usize>,
    /// The wire that gets what each of the card's queues sends.
    pub(crate) leaves: Vec<usize>,
}

impl PairsGuest<Loopback> {
    /// A running driver with all features that has not asked for more than one pair.
    pub(crate) fn start(name: &str, count: usize) -> Self {
        let ends = (0..count).map(|_| Loopback::pair(MAX_FRAME).unwrap());
        let (near, far) = ends.unzip();
        let mut guest = Self::plug_on(name, near, far);
        guest.boot();
        guest
    }
}

impl<W: NetBackend> PairsGuest<W> {
    pub(crate) fn plug_on<B: NetBackend>(name: &str, near: Vec<B>, wires: Vec<W>) -> Self {
        Self::plug_limited(name, near, wires, None)
    }

    /// The same in memory that was there before.
    pub(crate) fn plug_in<B: NetBackend>(
        ram: GuestRam,
        name: &str,
        near: Vec<B>,
        wires: Vec<W>,
    ) -> Self {
        Self::plug(ram, config(name), near, wires)
    }

    pub(crate) fn plug_limited<B: NetBackend>(
        name: &str,
        near: Vec<B>,
        wires: Vec<W>,
        rate: Option<RateLimit>,
    ) -> Self {
        let (mut config, faults) = config(name);
        config.rate = rate;
        Self::plug(ram(), (config, faults), near, wires)
    }

    fn plug<B: NetBackend>(
        ram: GuestRam,
        (config, faults): (NetConfig, Arc<Mutex<Vec<String>>>),
        near: Vec<B>,
        wires: Vec<W>,
    ) -> Self {
        let device = NetDevice::new(config, near).unwrap();
        Self {
            faults,
            ..Self::with_device_in(ram, device, wires)
        }
    }

    /// The same on a device that the test made.
    pub(crate) fn with_device<B: NetBackend>(device: NetDevice<B>, wires: Vec<W>) -> Self {
        Self::with_device_in(ram(), device, wires)
    }

    fn with_device_in<B: NetBackend>(ram: GuestRam, device: NetDevice<B>, wires: Vec<W>) -> Self {
        let control = device.control();
        let mut driver = TestDriver::in_ram(crate::FACE, ram, device);
        let features = driver.offered();
        let ctrl = driver.rings(0, 2);
        Self {
            arrives: (0..wires.len()).collect(),
            leaves: (0..wires.len()).collect(),
            driver,
            wires,
            control,
            faults: Arc::default(),
            features,
            pairs: Vec::new(),
            ctrl,
            ctrl_memory: 0,
        }
    }

    /// From reset to DRIVER_OK, with as many pairs as were negotiated.
    pub(crate) fn boot(&mut self) {
        let several = self.features & MQ != 0;
        let count = if several { self.wires.len() } else { 1 };
        self.boot_with(count);
    }

    /// The same with queues for the first `count` pairs only.
    pub(crate) fn boot_with(&mut self, count: usize) {
        self.set_up(count);
        assert_eq!(self.driver.status(), 15, "the device started");
    }

    /// The same, and never mind what the device says in the end.
    pub(crate) fn set_up(&mut self, count: usize) {
        assert!(self.driver.negotiate(self.features));
        self.pairs = (0..count).map(|pair| self.new_pair(pair)).collect();
        let several = self.features & MQ != 0;
        let control = if several { 2 * self.wires.len() } else { 2 };
        self.ctrl_memory = self.driver.allocate(8192, 16);
        if self.features & CTRL_VQ != 0 {
            self.ctrl = self.driver.queue(u16::try_from(control).unwrap(), 16);
        }
        self.driver.start();
    }

    pub(crate) fn new_pair(&mut self, pair: usize) -> Pair {
        let index = u16::try_from(2 * pair).unwrap();
        let driver = &mut self.driver;
        let mut rx = driver.queue(index, QUEUE_SIZE);
        let tx = driver.queue(index + 1, QUEUE_SIZE);
        let buffer = || driver.allocate(BUFFER as usize, 16);
        let addresses = std::iter::repeat_with(buffer).take(POSTED);
        let buffers = addresses
            .map(|address| {
                let head = rx.add(&[Buffer::writable(address, BUFFER)]);
                (u32::from(head), address)
            })
            .collect();
        let slots = BUFFER as usize * usize::from(QUEUE_SIZE);
        Pair {
            rx,
            tx,
            buffers,
            tx_memory: driver.allocate(slots, 16),
            next: 0,
        }
    }

    /// Gives a command and waits for its end: what the device wrote.
    pub(crate) fn command_with_room(&mut self, command: &[u8], room: u32) -> Vec<u8> {
        let answer = self.give_command(command, room);
        let used = self.ctrl.wait_used();
        self.driver.read_memory(answer, used.len as usize)
    }

    /// Gives a command, with that much room for an answer; where that will be.
    pub(crate) fn give_command(&mut self, command: &[u8], room: u32) -> u64 {
        let (at, answer) = (self.ctrl_memory, self.ctrl_memory + 4096);
        self.driver.write_memory(at, command);
        self.driver.write_memory(answer, &[0xee; 16]);
        let len = u32::try_from(command.len()).unwrap();
        let mut chain = Vec::new();
        if len > 0 {
            chain.push(Buffer::readable(at, len));
        }
        if room > 0 {
            chain.push(Buffer::writable(answer, room));
        }
        self.ctrl.add(&chain);
        self.driver.kick_if_wanted(&mut self.ctrl);
        answer
    }

    /// Gives a command as drivers do; the answer.
    pub(crate) fn command(&mut self, command: &[u8]) -> u8 {
        let written = self.command_with_room(command, 1);
        assert_eq!(written.len(), 1, "the acknowledgement");
        written[0]
    }

    /// The same with a command that is in guest memory; its answer comes after it.
    pub(crate) fn command_at(&mut self, at: u64, len: usize) -> u8 {
        let answer = at + len as u64;
        let len = u32::try_from(len).unwrap();
        let chain = [Buffer::readable(at, len), Buffer::writable(answer, 1)];
        self.ctrl.add(&chain);
        self.driver.kick_if_wanted(&mut self.ctrl);
        assert_eq!(self.ctrl.wait_used().len, 1);
        self.driver.read_memory(answer, 1)[0]
    }

    /// VQ_PAIRS_SET; the answer.
    pub(crate) fn set_pairs(&mut self, count: usize) -> u8 {
        let [low, high] = u16::try_from(count).unwrap().to_le_bytes();
        self.command(&[4, 0, low, high])
    }

    /// Queues a frame on a pair's transmit queue.
    pub(crate) fn queue_frame(&mut self, pair: usize, frame: &[u8]) {
        let pair = &mut self.pairs[pair];
        let slot = pair.next % u64::from(QUEUE_SIZE);
        pair.next += 1;
        let address = pair.tx_memory + u64::from(BUFFER) * slot;
        let bytes = with_header(frame);
        self.driver.write_memory(address, &bytes);
        let len = u32::try_from(bytes.len()).unwrap();
        pair.tx.add(&[Buffer::readable(address, len)]);
        self.driver.kick_if_wanted(&mut pair.tx);
    }

    /// Sends a frame by a pair; it comes out of that pair's wire.
    pub(crate) fn check_sent(&mut self, pair: usize, frame: &[u8]) {
        let wire = self.leaves[pair];
        self.queue_frame(pair, frame);
        self.pairs[pair].tx.wait_used();
        let sent = wait_for("a frame on the wire", || take(&mut self.wires[wire]));
        assert_eq!(sent, frame);
    }

    /// The next frame of a pair's receive queue, whose buffer is posted again at once.
    pub(crate) fn take_received(&mut self, pair: usize) -> Option<Vec<u8>> {
        let bytes = self.take_received_raw(pair)?;
        Some(bytes[HEADER..].to_vec())
    }

    /// The same with its header.
    fn take_received_raw(&mut self, pair: usize) -> Option<Vec<u8>> {
        let pair = &mut self.pairs[pair];
        let used = pair.rx.take_used()?;
        let address = pair.buffers.remove(&used.head).unwrap();
        let bytes = self.driver.read_memory(address, used.len as usize);
        let head = pair.rx.add(&[Buffer::writable(address, BUFFER)]);
        pair.buffers.insert(u32::from(head), address);
        self.driver.kick_if_wanted(&mut pair.rx);
        Some(bytes)
    }

    /// A frame that comes in on the wire of `pair`: the first 10 bytes of its header, and what becomes of it.
    pub(crate) fn receive_on(&mut self, pair: usize, frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let wire = self.arrives.iter().position(|&at| at == pair).unwrap();
        send(&mut self.wires[wire], frame);
        let bytes = wait_for("a frame", || self.take_received_raw(pair));
        let (header, frame) = bytes.split_at(HEADER);
        (header[..10].to_vec(), frame.to_vec())
    }

    /// A frame that comes in on the wire `wire` is received by `pair`.
    pub(crate) fn check_received(&mut self, pair: usize, wire: usize, frame: &[u8]) {
        send(&mut self.wires[wire], frame);
        let what = format!("a frame on receive queue {pair}");
        assert_eq!(wait_for(&what, || self.take_received(pair)), frame);
    }

    /// Finds out which wire leads to which queue and back, where the kernel decides that.
    pub(crate) fn learn_the_wires(&mut self) {
        let count = self.wires.len();
        assert_eq!(self.set_pairs(count), OK);
        for one in 0..count {
            let frame = pattern(60, one);
            send(&mut self.wires[one], &frame);
            self.arrives[one] = wait_for("the frame", || {
                (0..count).find(|&pair| self.take_received(pair).as_ref() == Some(&frame))
            });
            self.queue_frame(one, &frame);
            self.pairs[one].tx.wait_used();
            let wires = &mut self.wires;
            self.leaves[one] = wait_for("the frame on a wire", || {
                wires
                    .iter_mut()
                    .position(|wire| take(wire).as_ref() == Some(&frame))
            });
        }
    }

    /// With `used` pairs in use each sends by its own queue, and what arrives on queue `q` comes to
    /// pair `q % used`.
    pub(crate) fn check_traffic(&mut self, used: usize) {
        for (seed, len) in [60, 1514].into_iter().enumerate() {
            for pair in 0..used {
                self.check_sent(pair, &pattern(len, seed + pair));
            }
            for wire in 0..self.wires.len() {
                let pair = self.arrives[wire] % used;
                self.check_received(pair, wire, &pattern(len, seed + wire + 99));
            }
        }
    }

    pub(crate) fn assert_sound(&self) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "{faults:?}");
    }
}
