//! virtio-blk (virtio 1.2, section 5.2) on a raw image file or a block device.
//!
//! One queue, one thread. Data moves straight between the host's page cache and guest memory
//! (`preadv`, `pwritev`). Every request gets a status; only a chain that has no place for one
//! breaks the queue.

mod error;
mod format;
mod image;
mod lock;
mod request;
mod serial;
mod sys;
mod wire;

use std::{fmt, path::Path, sync::Arc};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::{
    ActivateError, Activation, VirtioDevice,
    quiet::Quiet,
    requests::{RequestThread, Worker},
    worker::{OnFault, log_fault},
};
use crate::placement::Placement;
pub use error::BlkError;
use image::Image;
use request::{Disk, MAX_RANGE};
pub use serial::{NotASerial, Serial};
use wire::{Config, SECTOR, SECTOR_LEN};

/// Device ID of a block device (virtio 1.2, section 5).
const DEVICE_ID: u32 = 2;
const QUEUE_SIZE: u16 = 256;
/// Most data descriptors of a request: what a full ring leaves beside header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;

/// A disk.
pub struct BlkDevice {
    name: String,
    serial: Option<Serial>,
    image: Arc<Image>,
    placement: Placement,
    on_fault: OnFault,
    faults: Arc<Quiet>,
    errors: Arc<Quiet>,
    worker: Option<RequestThread<Disk>>,
}

impl BlkDevice {
    /// Opens a raw image (a regular file or a block device) and locks it: others may have it open
    /// as well only if all of them just read. Named `blk0`.
    ///
    /// A size that is no multiple of 512 is rounded up: the missing bytes read as zeros, and a
    /// write to the last sector makes the file longer. (QEMU does the same.) The log has a warning of that, and of a
    /// file that looks like another format than a raw image.
    ///
    /// # Errors
    /// See [`BlkError`].
    pub fn open(path: &Path, read_only: bool) -> Result<Self, BlkError> {
        Ok(Self {
            name: "blk0".to_owned(),
            serial: None,
            image: Arc::new(Image::open(path, read_only)?),
            placement: Placement::default(),
            on_fault: log_fault(),
            faults: Arc::default(),
            errors: Arc::default(),
            worker: None,
        })
    }

    /// Sets the name of the disk's thread, which is also its name in the log, and to the guest as long as it has no
    /// other [serial number](Self::with_serial).
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the serial number that the guest sees.
    #[must_use]
    pub fn with_serial(mut self, serial: Serial) -> Self {
        self.serial = Some(serial);
        self
    }

    /// The serial number that the guest sees: its name's, if none was set.
    pub fn serial(&self) -> Serial {
        self.serial.unwrap_or_else(|| Serial::of_name(&self.name))
    }

    /// Sets which CPUs the disk's thread runs on.
    #[must_use]
    pub fn placed(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Sets who is told when the disk's thread dies.
    #[must_use]
    pub fn on_fault(mut self, on_fault: OnFault) -> Self {
        self.on_fault = on_fault;
        self
    }

    /// Size of the disk in bytes, as the guest sees it.
    pub fn size(&self) -> u64 {
        self.image.sectors().saturating_mul(SECTOR)
    }

    fn config(&self) -> Config {
        let range = |offered| if offered { MAX_RANGE } else { 0 };
        Config {
            capacity: self.image.sectors(),
            seg_max: SEG_MAX,
            blk_size: SECTOR_LEN.into(),
            max_discard_sectors: range(self.image.discards()),
            max_write_zeroes_sectors: range(self.image.zeroes()),
        }
    }
}

impl fmt::Debug for BlkDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlkDevice")
            .field("name", &self.name)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

impl VirtioDevice for BlkDevice {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        let optional = |offered, bit: u32| u64::from(offered) << bit;
        1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | FLUSH
            | optional(self.image.is_read_only(), VIRTIO_BLK_F_RO)
            | optional(self.image.discards(), VIRTIO_BLK_F_DISCARD)
            | optional(self.image.zeroes(), VIRTIO_BLK_F_WRITE_ZEROES)
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let queue = activation.queues.get_mut(0).and_then(Option::take);
        let queue = queue.ok_or(ActivateError::QueueMissing(0))?;
        let disk = Disk {
            name: self.name.clone(),
            image: Arc::clone(&self.image),
            serial: self.serial(),
            write_through: activation.features & FLUSH == 0,
            errors: Arc::clone(&self.errors),
        };
        let worker = Worker {
            name: self.name.clone(),
            placement: self.placement.clone(),
            faults: Arc::clone(&self.faults),
            on_fault: Arc::clone(&self.on_fault),
            handler: disk,
        };
        let what = "start the thread of the disk";
        let worker = worker
            .spawn(queue, activation.interrupt)
            .map_err(|source| ActivateError::System { what, source })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        // Stops and joins.
        self.worker = None;
    }

    fn pause(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.pause();
        }
    }

    fn resume(&mut self) -> Result<(), ActivateError> {
        self.worker.as_mut().map_or(Ok(()), RequestThread::resume)
    }
}
