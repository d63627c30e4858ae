//! A guest with a network card whose wire the test holds the other end of.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use devices::{
    GuestRam,
    testing::{Buffer, DriverQueue, TestDriver, Used, ram, wait_for},
    virtio::net::{BusyPoll, NetBackend, NetConfig, NetControl, NetDevice, loopback::Loopback},
};

/// Bytes of the virtio-net header with VERSION_1.
pub(crate) const HEADER: usize = 12;
/// Longest frame of the wire.
pub(crate) const MAX_FRAME: usize = 3000;
/// Bytes of guest memory for each transmit buffer.
const SLOT: usize = 4096;
pub(crate) const QUEUE_SIZE: u16 = 64;
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub(crate) const RX: u16 = 0;
pub(crate) const TX: u16 = 1;

pub(crate) const MTU_FEATURE: u64 = 1 << 3;
pub(crate) const MRG_RXBUF: u64 = 1 << 15;
pub(crate) const CTRL_VQ: u64 = 1 << 17;
pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const RING_RESET: u64 = 1 << 40;

pub(crate) struct NetGuest<W = Loopback> {
    pub(crate) driver: TestDriver,
    pub(crate) wire: W,
    /// Bytes of the longest frame that goes both ways.
    pub(crate) longest: usize,
    pub(crate) control: NetControl,
    pub(crate) faults: Arc<Mutex<Vec<String>>>,
    pub(crate) features: u64,
    pub(crate) rx: DriverQueue,
    pub(crate) tx: DriverQueue,
    pub(crate) tx_slots: u64,
    next_slot: u64,
    posted: std::collections::HashMap<u32, (u64, u32)>,
}

pub(crate) fn config(name: &str) -> (NetConfig, Arc<Mutex<Vec<String>>>) {
    let faults = Arc::<Mutex<Vec<String>>>::default();
    let list = Arc::clone(&faults);
    let on_fault = Arc::new(move |text: &str| list.lock().unwrap().push(text.into()));
    (NetConfig::new(name, MAC, on_fault), faults)
}

impl NetGuest<Loopback> {
    /// A card that the guest has not touched yet.
    pub(crate) fn plug(name: &str) -> Self {
        let (near, wire) = Loopback::pair(MAX_FRAME).unwrap();
        Self::plug_on(name, near, wire)
    }

    /// A card with a running driver and all features.
    pub(crate) fn start(name: &str) -> Self {
        let mut guest = Self::plug(name);
        guest.boot();
        guest
    }
}

impl<W: NetBackend> NetGuest<W> {
    /// The same on any back end whose far end is `wire`.
    pub(crate) fn plug_on<B: NetBackend>(name: &str, near: B, wire: W) -> Self {
        Self::plug_polling(name, near, wire, BusyPoll::Adaptive)
    }

    pub(crate) fn plug_polling<B: NetBackend>(
        name: &str,
        near: B,
        wire: W,
        busy_poll: BusyPoll,
    ) -> Self {
        Self::plug_in(ram(), name, near, wire, busy_poll)
    }

    /// The same in memory that was there before.
    pub(crate) fn plug_in<B: NetBackend>(
        ram: GuestRam,
        name: &str,
        near: B,
        wire: W,
        busy_poll: BusyPoll,
    ) -> Self {
        let (mut config, faults) = config(name);
        config.busy_poll = busy_poll;
        let device = NetDevice::new(config, vec![near]).unwrap();
        let control = device.control();
        let mut driver = TestDriver::in_ram(crate::FACE, ram, device);
        let features = driver.offered();
        let (rx, tx) = (driver.rings(RX, QUEUE_SIZE), driver.rings(TX, QUEUE_SIZE));
        Self {
            driver,
            wire,
            longest: MAX_FRAME,
            control,
            faults,
            features,
            rx,
            tx,
            tx_slots: 0,
            next_slot: 0,
            posted: Default::default(),
        }
    }

    /// From reset to DRIVER_OK, with new rings.
    pub(crate) fn boot(&mut self) {
        self.set_up();
        self.driver.enable(&self.rx);
        self.driver.enable(&self.tx);
        self.driver.start();
        assert_eq!(self.driver.status(), 15, "the device started");
    }

    /// From reset to FEATURES_OK, with new rings that the device does not know yet.
    pub(crate) fn set_up(&mut self) {
        assert!(self.driver.negotiate(self.features));
        self.rx = self.driver.rings(RX, QUEUE_SIZE);
        self.tx = self.driver.rings(TX, QUEUE_SIZE);
        self.tx_slots = self.driver.allocate(SLOT * usize::from(QUEUE_SIZE), 4096);
        self.posted.clear();
    }

    /// Makes a receive buffer available.
    pub(crate) fn post(&mut self, len: u32) {
        let address = self.driver.allocate(len as usize, 1);
        let head = self.rx.add(&[Buffer::writable(address, len)]);
        self.posted.insert(u32::from(head), (address, len));
        self.driver.kick_if_wanted(&mut self.rx);
    }

    /// Makes several receive buffers available at one time.
    pub(crate) fn post_together(&mut self, lens: &[u32]) {
        for &len in lens {
            let address = self.driver.allocate(len as usize, 1);
            let head = self.rx.prepare(&[Buffer::writable(address, len)]);
            self.posted.insert(u32::from(head), (address, len));
        }
        self.rx.show();
        self.driver.kick(RX);
    }

    /// Makes a chain available to transmit; its first bytes are the header.
    pub(crate) fn queue_bytes(&mut self, bytes: &[u8]) -> u16 {
        let head = self.queue_silently(bytes);
        self.driver.kick_if_wanted(&mut self.tx);
        head
    }

    /// The same without a kick.
    pub(crate) fn queue_silently(&mut self, bytes: &[u8]) -> u16 {
        let address = self.tx_slots + SLOT as u64 * (self.next_slot % u64::from(QUEUE_SIZE));
        self.next_slot += 1;
        self.driver.write_memory(address, bytes);
        let len = u32::try_from(bytes.len()).unwrap();
        self.tx.add(&[Buffer::readable(address, len)])
    }

    /// Transmits a frame and waits until the device gave the buffer back.
    pub(crate) fn transmit(&mut self, frame: &[u8]) {
        let head = self.queue_bytes(&with_header(frame));
        assert_eq!(
            self.tx.wait_used(),
            Used {
                head: head.into(),
                len: 0
            }
        );
    }

    /// The next frame that arrives at the far end.
    pub(crate) fn sent(&mut self) -> Vec<u8> {
        wait_for("a frame on the wire", || take(&mut self.wire))
    }

    /// Whether nothing lies at the far end.
    pub(crate) fn wire_is_empty(&mut self) -> bool {
        take(&mut self.wire).is_none()
    }

    /// Sends a frame from the far end.
    pub(crate) fn inject(&mut self, frame: &[u8]) {
        send(&mut self.wire, frame);
    }

    /// The next frame that the guest receives, from as many buffers as it fills.
    pub(crate) fn received(&mut self) -> Vec<u8> {
        let (header, frame) = self.received_raw();
        assert_eq!(header[..10], [0; 10], "no offloads");
        frame
    }

    /// The same with its header.
    pub(crate) fn received_raw(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (address, used) = self.used_buffer();
        let first = self.driver.read_memory(address, used);
        let (header, frame) = first.split_at(HEADER);
        let buffers = u16::from_le_bytes([header[10], header[11]]);
        let mut frame = frame.to_vec();
        for _ in 1..buffers {
            let (address, used) = self.used_buffer();
            frame.extend(self.driver.read_memory(address, used));
        }
        (header.to_vec(), frame)
    }

    fn used_buffer(&mut self) -> (u64, usize) {
        let used = self.rx.wait_used();
        let (address, len) = self.posted.remove(&used.head).unwrap();
        assert!(used.len <= len, "more written than there is room");
        (address, used.len as usize)
    }

    /// Frames go both ways, unharmed.
    pub(crate) fn check_traffic(&mut self) {
        for len in [14, 60, 1514, self.longest] {
            let frame = pattern(len, 1);
            self.transmit(&frame);
            assert_same(self.sent(), &frame);
            self.post(u32::try_from(MAX_FRAME + HEADER).unwrap());
            let frame = pattern(len, 2);
            self.inject(&frame);
            assert_same(self.received(), &frame);
        }
    }

    /// Nothing went wrong on the host's side.
    pub(crate) fn assert_sound(&self) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "{faults:?}");
    }
}

/// Ends the other threads of a test, also when it fails.
#[derive(Default)]
pub(crate) struct Ender(AtomicBool);

impl Ender {
    pub(crate) fn goes_on(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn guard(&self) -> impl Drop + '_ {
        struct Guard<'a>(&'a AtomicBool);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        Guard(&self.0)
    }
}

pub(crate) fn take(wire: &mut impl NetBackend) -> Option<Vec<u8>> {
    let mut taken = None;
    wire.receive(1, |fragments| {
        taken = Some(fragments.concat());
        ControlFlow::Continue(())
    });
    taken
}

pub(crate) fn send(wire: &mut impl NetBackend, frame: &[u8]) {
    let mut rest = frame;
    let mut fill = |buffer: &mut [u8]| {
        let (bytes, after) = rest.split_at(buffer.len());
        buffer.copy_from_slice(bytes);
        rest = after;
    };
    wire.send(frame.len(), &mut fill).unwrap();
    wait_for("room on the wire", || wire.flush().ok());
}

/// A frame that came over a wire is the one that was sent. One of AF_XDP has zeros behind a short frame.
pub(crate) fn assert_same(mut got: Vec<u8>, frame: &[u8]) {
    if got.len() == 60 {
        let padding = got.split_off(frame.len());
        assert!(padding.iter().all(|&byte| byte == 0), "{padding:x?}");
    }
    assert_eq!(got, frame);
}

/// A frame of `len` bytes that is like no other with another seed.
pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 7 + seed * 131 + (i >> 8)).to_le_bytes()[0])
        .collect()
}

pub(crate) fn with_header(frame: &[u8]) -> Vec<u8> {
    [&[0; HEADER][..], frame].concat()
}

/// Processor time that the thread `name` has used, in clock ticks (10 ms).
fn thread_ticks(name: &str) -> Option<u64> {
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else {
            continue;
        };
        let (before, after) = stat.rsplit_once(')').unwrap();
        if before.ends_with(&format!("({name}")) {
            let fields: Vec<&str> = after.split_whitespace().collect();
            // proc(5): state is field 3, utime field 14, stime field 15.
            return Some(fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap());
        }
    }
    None
}

/// Asserts that the thread sleeps rather than spins: in half a second of waiting it may not even use
/// a quarter of one.
pub(crate) fn assert_idle(name: &str) {
    // A thread names itself when it first runs.
    let before = wait_for(name, || thread_ticks(name));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let used = wait_for(name, || thread_ticks(name)) - before;
    assert!(
        used < 25,
        "{name} used {used} ticks while it had nothing to do"
    );
}
