//! A block driver on the test driver, and images to try it on.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use devices::{
    testing::{Buffer, DriverQueue, TestDriver, Used},
    virtio::{blk::BlkDevice, queue::VERSION_1},
};

pub(crate) const SECTOR: usize = 512;
pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const GET_ID: u32 = 8;

pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;
/// What the status byte is before the device writes it.
pub(crate) const UNTOUCHED: u8 = 0xee;

/// Bytes of the two areas that requests are laid out in.
const AREA: usize = 1 << 20;

/// A file that goes away with the test.
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    pub(crate) fn new(content: &[u8]) -> Self {
        let file = Self(Self::fresh_path());
        fs::write(&file.0, content).unwrap();
        file
    }

    /// A path in the temporary directory that nothing has.
    pub(crate) fn fresh_path() -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringwire-blk-test-{}-{number}", std::process::id());
        std::env::temp_dir().join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }

    pub(crate) fn set_len(&self, len: u64) {
        let file = File::options().write(true).open(&self.0).unwrap();
        file.set_len(len).unwrap();
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Bytes that differ from sector to sector and inside a sector.
pub(crate) fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let byte = |at: usize| (at ^ (at >> 8) ^ seed.wrapping_mul(37)).to_le_bytes()[0];
    (0..len).map(byte).collect()
}

pub(crate) fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// What came back of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u8,
    pub(crate) data: Vec<u8>,
    /// What the used ring says was written.
    pub(crate) len: usize,
}

/// A disk with its driver.
pub(crate) struct Disk {
    pub(crate) driver: TestDriver,
    pub(crate) queue: DriverQueue,
    /// Device-readable and device-writable memory of the request at hand.
    pub(crate) readable: u64,
    pub(crate) writable: u64,
}

impl Disk {
    /// Opens an image for reading and writing and takes all features.
    pub(crate) fn new(image: &TempFile) -> Self {
        Self::on(BlkDevice::open(image.path(), false).unwrap())
    }

    pub(crate) fn read_only(image: &TempFile) -> Self {
        Self::on(BlkDevice::open(image.path(), true).unwrap())
    }

    pub(crate) fn on(device: BlkDevice) -> Self {
        let mut driver = TestDriver::on(crate::FACE, device);
        let features = driver.offered();
        let (queue, readable, writable) = Self::bring_up(&mut driver, features);
        Self {
            driver,
            queue,
            readable,
            writable,
        }
    }

    fn bring_up(driver: &mut TestDriver, features: u64) -> (DriverQueue, u64, u64) {
        assert!(driver.negotiate(features | VERSION_1));
        let queue = driver.queue(0, 256);
        let readable = driver.allocate(AREA, 16);
        let writable = driver.allocate(AREA, 16);
        driver.start();
        (queue, readable, writable)
    }

    /// Resets the device and starts over.
    pub(crate) fn restart(&mut self, features: u64) {
        (self.queue, self.readable, self.writable) = Self::bring_up(&mut self.driver, features);
    }

    /// Lays `readable` and `writable` bytes out in buffers of the lengths given.
    pub(crate) fn buffers(
        &self,
        out: &[u8],
        readable: &[usize],
        writable: &[usize],
    ) -> Vec<Buffer> {
        self.driver.write_memory(self.readable, out);
        let total = writable.iter().sum();
        self.driver
            .write_memory(self.writable, &vec![UNTOUCHED; total]);
        let mut buffers = Vec::new();
        let mut at = self.readable;
        for &len in readable {
            buffers.push(Buffer::readable(at, u32::try_from(len).unwrap()));
            at += len as u64;
        }
        at = self.writable;
        for &len in writable {
            buffers.push(Buffer::writable(at, u32::try_from(len).unwrap()));
            at += len as u64;
        }
        buffers
    }

    /// Makes a chain available, kicks, waits for it.
    pub(crate) fn submit(&mut self, buffers: &[Buffer]) -> Used {
        self.queue.add(buffers);
        self.driver.kick_if_wanted(&mut self.queue);
        self.queue.wait_used()
    }

    /// A request in buffers of the lengths given; the last writable byte is the status.
    pub(crate) fn split(&mut self, out: &[u8], readable: &[usize], writable: &[usize]) -> Answer {
        let buffers = self.buffers(out, readable, writable);
        let used = self.submit(&buffers);
        let total = writable.iter().sum();
        let mut data = self.driver.read_memory(self.writable, total);
        let status = data.pop().unwrap();
        let len = usize::try_from(used.len).unwrap();
        Answer { status, data, len }
    }

    /// A request as Linux lays it out: header, data, status in a buffer each.
    pub(crate) fn request(&mut self, kind: u32, sector: u64, out: &[u8], len_in: usize) -> Answer {
        let mut bytes = header(kind, sector).to_vec();
        bytes.extend_from_slice(out);
        let nonempty = |lens: [usize; 2]| lens.into_iter().filter(|&len| len > 0);
        let readable: Vec<_> = nonempty([16, out.len()]).collect();
        let writable: Vec<_> = nonempty([len_in, 1]).collect();
        self.split(&bytes, &readable, &writable)
    }

    pub(crate) fn read(&mut self, sector: u64, len: usize) -> Answer {
        self.request(IN, sector, &[], len)
    }

    pub(crate) fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.request(OUT, sector, data, 0).status
    }

    /// The disk works: sector 0 can be read.
    pub(crate) fn assert_works(&mut self) {
        assert_eq!(self.read(0, SECTOR).status, OK);
    }
}
