//! A network card at work: frames both ways through its rings, and commands on its control queue.

use std::{cell::RefCell, ops::ControlFlow, sync::Arc, thread};

use arbitrary::{Result, Unstructured};
use devices::{
    testing::{Buffer, DriverQueue, Face, TestDriver, register, status, wait_for},
    virtio::{
        net::{NetBackend, NetConfig, NetDevice, loopback::Loopback, offload::segment::cut},
        queue::VERSION_1,
    },
};

use crate::frames;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// Longest frame of the wire, which is more than its MTU: a sender may leave frames whole.
const MAX_FRAME: usize = 5000;
/// Bytes of a chunk of a frame.
const CHUNK: usize = 2000;
const QUEUE_SIZE: u16 = 16;
/// Bytes of a frame or a command with its header, and of a receive buffer.
const SLOT: usize = 0x1_1000;
/// VIRTIO_NET_F_CTRL_VQ.
const CTRL_VQ: u64 = 1 << 17;
/// Bytes of the virtio-net header.
const HEADER: usize = 12;

thread_local! {
    static CARD: RefCell<(TestDriver, Loopback)> = RefCell::new(card());
}

fn card() -> (TestDriver, Loopback) {
    let (near, far) = Loopback::pair(MAX_FRAME).expect("a pair of sockets");
    let on_fault = Arc::new(|reason: &str| {
        // On another thread, where a panic would end that one only.
        eprintln!("the card died: {reason}");
        std::process::abort();
    });
    let near = near.with_fragments(CHUNK);
    let card = NetDevice::new(NetConfig::new("fuzz", MAC, on_fault), vec![near]);
    (TestDriver::on(Face::Mmio, card.expect("a card")), far)
}

struct Guest<'a> {
    driver: &'a mut TestDriver,
    wire: &'a mut Loopback,
    rx: DriverQueue,
    tx: DriverQueue,
    control: DriverQueue,
    out: u64,
    answer: u64,
}

impl<'a> Guest<'a> {
    /// With the features that the script wants; `None` if they don't go together.
    fn boot(
        (driver, wire): &'a mut (TestDriver, Loopback),
        u: &mut Unstructured<'_>,
    ) -> Result<Option<Self>> {
        let features = driver.offered() & u.arbitrary::<u64>()? | VERSION_1 | CTRL_VQ;
        if !driver.negotiate(features) {
            return Ok(None);
        }
        let [rx, tx, control] = [0, 1, 2].map(|index| driver.queue(index, QUEUE_SIZE));
        let out = driver.allocate(SLOT, 16);
        let answer = driver.allocate(64, 16);
        driver.start();
        Ok(Some(Self {
            driver,
            wire,
            rx,
            tx,
            control,
            out,
            answer,
        }))
    }

    /// Takes what arrived on the wire; none is longer than the wire allows.
    fn drain(&mut self) {
        let mut more = true;
        while more {
            more = false;
            self.wire.receive(1, |fragments| {
                more = true;
                let len: usize = fragments.iter().map(|fragment| fragment.len()).sum();
                assert!(len <= MAX_FRAME);
                ControlFlow::Continue(())
            });
        }
    }

    /// Transmits bytes, header and all, in up to three buffers; the device gives them back or stops.
    fn transmit(&mut self, bytes: &[u8], cuts: [u16; 2]) -> Option<()> {
        self.driver.write_memory(self.out, bytes);
        let buffers = pieces(self.out, bytes.len(), cuts, Buffer::readable);
        self.tx.add(&buffers);
        self.driver.kick(1);
        wait_for("the frame's end", || {
            self.drain();
            let stopped = self.driver.status() & status::NEEDS_RESET != 0;
            self.tx.take_used().map(Some).or(stopped.then_some(None))
        })?;
        Some(())
    }

    fn post(&mut self, lens: [u16; 2]) {
        if self.rx.room() < 2 {
            return;
        }
        let lens = lens.map(|len| u32::from(len) + 1);
        let at = self.driver.allocate(lens.iter().sum::<u32>() as usize, 1);
        let second = at + u64::from(lens[0]);
        self.rx.add(&[
            Buffer::writable(at, lens[0]),
            Buffer::writable(second, lens[1]),
        ]);
        self.driver.kick(0);
    }

    /// Resets a queue, and enables it with other rings.
    fn renew(&mut self, index: u16, size: u16) {
        self.driver.write(register::QUEUE_SEL, index.into());
        self.driver.write(register::QUEUE_RESET, 1);
        if self.driver.read(register::QUEUE_READY) != 0 {
            // The script did not negotiate it.
            return;
        }
        let queue = self.driver.queue(index, size);
        match index {
            0 => self.rx = queue,
            1 => self.tx = queue,
            _ => self.control = queue,
        }
    }

    fn inject(&mut self, frame: &[u8]) {
        let mut rest = frame;
        let sent = self.wire.send(frame.len(), &mut |buffer: &mut [u8]| {
            let (bytes, after) = rest.split_at(buffer.len());
            buffer.copy_from_slice(bytes);
            rest = after;
        });
        if sent.is_ok() {
            let _ = self.wire.flush();
        }
    }

    /// Gives the card a moment, and takes what it received.
    fn receive(&mut self) {
        for _ in 0..20 {
            thread::yield_now();
            while let Some(used) = self.rx.take_used() {
                assert!(used.len <= 2 * 0x1_0000);
            }
        }
    }

    /// A command, and its answer if there is room for one.
    fn command(&mut self, command: &[u8], room: u8, cuts: [u16; 2]) -> Option<()> {
        self.driver.write_memory(self.out, command);
        self.driver.write_memory(self.answer, &[0xee; 64]);
        let room = u32::from(room % 8);
        let mut buffers = pieces(self.out, command.len(), cuts, Buffer::readable);
        if room > 0 {
            buffers.push(Buffer::writable(self.answer, room));
        }
        if buffers.is_empty() {
            return Some(());
        }
        self.control.add(&buffers);
        self.driver.kick(2);
        let used = wait_for("the command's end", || {
            let stopped = self.driver.status() & status::NEEDS_RESET != 0;
            let used = self.control.take_used().map(Some);
            used.or(stopped.then_some(None))
        })?;
        assert!(used.len <= room, "more was written than there is room for");
        if used.len > 0 {
            let answer = self.driver.read_memory(self.answer, 1);
            assert!(answer[0] <= 1, "answer {answer:?}");
        }
        Some(())
    }
}

/// Cuts `len` bytes from `base` on into up to three buffers.
fn pieces(base: u64, len: usize, cuts: [u16; 2], make: fn(u64, u32) -> Buffer) -> Vec<Buffer> {
    let mut cuts = cuts.map(|cut| usize::from(cut).min(len));
    cuts.sort_unstable();
    let [one, two] = cuts;
    let parts = [(0, one), (one, two), (two, len)];
    let parts = parts.into_iter().filter(|(from, to)| from < to);
    let buffer = |(from, to)| make(base + from as u64, u32::try_from(to - from).unwrap_or(0));
    parts.map(buffer).collect()
}

/// Frames both ways, and now and then a command.
pub fn frames(data: &[u8]) {
    CARD.with_borrow_mut(|card| {
        let _ = frames_script(card, &mut Unstructured::new(data));
    });
}

/// Commands only, one after the other.
pub fn control(data: &[u8]) {
    CARD.with_borrow_mut(|card| {
        let _ = control_script(card, &mut Unstructured::new(data));
    });
}

fn control_script(card: &mut (TestDriver, Loopback), u: &mut Unstructured<'_>) -> Result<()> {
    let Some(mut guest) = Guest::boot(card, u)? else {
        return Ok(());
    };
    for _ in 0..16 {
        if u.is_empty() || any_command(&mut guest, u)?.is_none() {
            break;
        }
    }
    Ok(())
}

fn any_command(guest: &mut Guest<'_>, u: &mut Unstructured<'_>) -> Result<Option<()>> {
    let (class, command): (u8, u8) = (u.int_in_range(0..=8)?, u.int_in_range(0..=6)?);
    let len = u.int_in_range(0..=u.len().min(900))?;
    let bytes = [&[class, command], u.bytes(len)?].concat();
    let (room, cuts) = (u.arbitrary()?, u.arbitrary()?);
    let end = if u.ratio(1, 16)? { 1 } else { bytes.len() };
    Ok(guest.command(&bytes[..end], room, cuts))
}

fn frames_script(card: &mut (TestDriver, Loopback), u: &mut Unstructured<'_>) -> Result<()> {
    let Some(mut guest) = Guest::boot(card, u)? else {
        return Ok(());
    };
    for _ in 0..16 {
        if u.is_empty() {
            break;
        }
        let alive = match u.int_in_range(0..=10)? {
            0..=3 => any_frame(&mut guest, u)?,
            4 | 5 => {
                guest.post(u.arbitrary()?);
                Some(())
            }
            6..=8 => {
                arrivals(&mut guest, u)?;
                Some(())
            }
            9 => any_command(&mut guest, u)?,
            _ => {
                let size = *u.choose(&[QUEUE_SIZE, 4, 64])?;
                guest.renew(u.int_in_range(0..=2)?, size);
                Some(())
            }
        };
        if alive.is_none() {
            break;
        }
    }
    guest.drain();
    Ok(())
}

/// A frame of the guest, with a header that fits it, or with any.
fn any_frame(guest: &mut Guest<'_>, u: &mut Unstructured<'_>) -> Result<Option<()>> {
    let spec = frames::spec(u, 20_000)?;
    let mut frame = spec.build_partial();
    let mut header = [0; HEADER];
    let request = spec.request(u.int_in_range(1..=3000)?);
    if u.ratio(3, 4)? {
        let [start, offset] = [request.checksum_start, request.checksum_offset]
            .map(|place| u16::try_from(place).unwrap_or(0).to_le_bytes());
        header[0] = 1;
        header[1] = match (spec.udp, spec.v6) {
            (true, _) => 5,
            (false, false) => 1,
            (false, true) => 4,
        };
        header[4..6].copy_from_slice(&request.size.to_le_bytes());
        header[6..8].copy_from_slice(&start);
        header[8..10].copy_from_slice(&offset);
        for _ in 0..u.int_in_range(0..=2)? {
            header[u.choose_index(HEADER)?] = u.arbitrary()?;
        }
    } else {
        header = u.arbitrary()?;
    }
    frames::spoil(u, &mut frame)?;
    let bytes = [&header[..], &frame].concat();
    Ok(guest.transmit(&bytes, u.arbitrary()?))
}

/// Segments of a frame from the wire, some of them changed, or all of it in one.
fn arrivals(guest: &mut Guest<'_>, u: &mut Unstructured<'_>) -> Result<()> {
    let spec = frames::spec(u, 4000)?;
    let size = u.int_in_range(8..=1500)?;
    let mut segments = Vec::new();
    let frame = spec.build_partial();
    if u.ratio(3, 4)? {
        let _ = cut(&frame, spec.request(size), |headers, payload| {
            segments.push([headers, payload].concat());
        });
    }
    if segments.is_empty() {
        segments.push(frame);
    }
    for mut segment in segments.into_iter().take(32) {
        if u.ratio(1, 8)? {
            frames::spoil(u, &mut segment)?;
        }
        segment.truncate(MAX_FRAME);
        guest.inject(&segment);
    }
    guest.receive();
    Ok(())
}
