//! Requests to a disk, laid out as no driver would.

use std::{cell::RefCell, fs::File, os::fd::AsRawFd, path::PathBuf};

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::{
    testing::{Buffer, Face, TestDriver},
    virtio::{blk::BlkDevice, queue::VERSION_1},
};
use rustix::fs::{MemfdFlags, memfd_create};

/// Bytes of the image: a few sectors.
const IMAGE: u64 = 16 * 512;
/// Most bytes that a request reads, and that it writes: four buffers of 2047.
const AREA: usize = 0x2000;
const QUEUE_SIZE: u16 = 16;
/// What memory has before the device writes it.
const UNTOUCHED: u8 = 0xee;

/// A request: its header, and into which buffers it is cut.
#[derive(Debug, Arbitrary)]
struct Request {
    kind: u8,
    sector: u8,
    wild: Option<(u32, u64)>,
    readable: [u16; 4],
    writable: [u16; 4],
    in_one: bool,
}

thread_local! {
    /// The image has no name in any directory that would be left behind.
    static DISK: RefCell<(File, TestDriver)> = RefCell::new(disk());
}

fn disk() -> (File, TestDriver) {
    let file = File::from(memfd_create("image", MemfdFlags::CLOEXEC).expect("a memfd"));
    file.set_len(IMAGE).expect("a memfd of that size");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let device = BlkDevice::open(&path, false).expect("an image");
    (file, TestDriver::on(Face::Mmio, device))
}

/// Sends requests, each when the one before was answered.
pub fn run(data: &[u8]) {
    DISK.with_borrow_mut(|(file, driver)| {
        let _ = script(driver, &mut Unstructured::new(data));
        let len = file.metadata().expect("a file").len();
        assert_eq!(len, IMAGE, "a guest changed the size of its disk");
    });
}

fn script(driver: &mut TestDriver, u: &mut Unstructured<'_>) -> Result<()> {
    let offered = driver.offered();
    let features = u.arbitrary::<u64>()? & offered | VERSION_1;
    if !driver.negotiate(features) {
        return Ok(());
    }
    let mut queue = driver.queue(0, QUEUE_SIZE);
    let (readable, writable) = (driver.allocate(AREA, 16), driver.allocate(AREA, 16));
    driver.start();
    for _ in 0..16 {
        if u.is_empty() {
            break;
        }
        let request = Request::arbitrary(u)?;
        driver.write_memory(readable, &request.header());
        let cut = |base: u64, lens: [u16; 4], make: fn(u64, u32) -> Buffer| {
            let mut at = base;
            lens.into_iter()
                .map(|len| len & 0x7ff)
                .filter(|&len| len > 0)
                .map(move |len| {
                    at += u64::from(len);
                    make(at - u64::from(len), len.into())
                })
        };
        let mut lens = request.readable;
        if !request.in_one {
            lens[0] = 16;
        }
        let mut buffers: Vec<_> = cut(readable, lens, Buffer::readable).collect();
        buffers.extend(cut(writable, request.writable, Buffer::writable));
        if buffers.is_empty() {
            continue;
        }
        let room: u32 = request
            .writable
            .into_iter()
            .map(|len| u32::from(len & 0x7ff))
            .sum();
        let status = writable + u64::from(room.max(1)) - 1;
        driver.write_memory(status, &[UNTOUCHED]);
        queue.add(&buffers);
        driver.kick(0);
        if room == 0 {
            // There is no place to say that nothing was done.
            driver.wait_needs_reset();
            break;
        }
        let used = queue.wait_used();
        assert!(used.len <= room, "more was written than there is room for");
        let answer = driver.read_memory(status, 1);
        assert!(answer[0] <= 2, "status {answer:?}");
    }
    Ok(())
}

impl Request {
    /// The header (virtio 1.2, 5.2.6).
    fn header(&self) -> [u8; 16] {
        let (kind, sector) = self.wild.unwrap_or((self.kind.into(), self.sector.into()));
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        bytes
    }
}
