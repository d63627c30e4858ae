//! The common configuration structure (virtio 1.2, 4.1.4.3).

use super::{super::state::Half, PciTransport, signals::NO_VECTOR};
use crate::{pci::exact, virtio::queue::RingPart};

/// Offsets in `struct virtio_pci_common_cfg`, with their widths in bytes.
mod field {
    pub(super) const DEVICE_FEATURE_SELECT: (u64, usize) = (0, 4);
    pub(super) const DEVICE_FEATURE: (u64, usize) = (4, 4);
    pub(super) const DRIVER_FEATURE_SELECT: (u64, usize) = (8, 4);
    pub(super) const DRIVER_FEATURE: (u64, usize) = (12, 4);
    pub(super) const CONFIG_MSIX_VECTOR: (u64, usize) = (16, 2);
    pub(super) const NUM_QUEUES: (u64, usize) = (18, 2);
    pub(super) const DEVICE_STATUS: (u64, usize) = (20, 1);
    pub(super) const CONFIG_GENERATION: (u64, usize) = (21, 1);
    pub(super) const QUEUE_SELECT: (u64, usize) = (22, 2);
    pub(super) const QUEUE_SIZE: (u64, usize) = (24, 2);
    pub(super) const QUEUE_MSIX_VECTOR: (u64, usize) = (26, 2);
    pub(super) const QUEUE_ENABLE: (u64, usize) = (28, 2);
    pub(super) const QUEUE_NOTIFY_OFF: (u64, usize) = (30, 2);
    /// Start of `queue_desc`, `queue_driver`, `queue_device`, 8 bytes each, accessed as halves.
    pub(super) const QUEUE_ADDRESSES: u64 = 32;
    pub(super) const QUEUE_ADDRESSES_END: u64 = 56;
    /// Reads as 0 always: a reset is over when the write of it is.
    pub(super) const QUEUE_RESET: (u64, usize) = (58, 2);
}

/// What the driver looks at.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    device_features: u32,
    driver_features: u32,
    queue: u16,
}

impl PciTransport {
    /// 4.1.3.1: fields are accessed at their own width; anything else reads as zero. `data` comes
    /// zeroed.
    pub(super) fn read_common(&self, offset: u64, data: &mut [u8]) {
        let queue = self.core.queue(self.selectors.queue.into());
        let value: u32 = match (offset, data.len()) {
            field::DEVICE_FEATURE_SELECT => self.selectors.device_features,
            field::DEVICE_FEATURE => self.core.device_features(self.selectors.device_features),
            field::DRIVER_FEATURE_SELECT => self.selectors.driver_features,
            field::DRIVER_FEATURE => self.core.driver_features(self.selectors.driver_features),
            field::CONFIG_MSIX_VECTOR => self.signals.config_vector().into(),
            field::NUM_QUEUES => u32::try_from(self.core.queue_count()).unwrap_or(u32::MAX),
            field::DEVICE_STATUS => self.core.status(),
            field::CONFIG_GENERATION => self.core.config_generation(),
            field::QUEUE_SELECT => self.selectors.queue.into(),
            field::QUEUE_SIZE => queue.map_or(0, |queue| queue.size.into()),
            field::QUEUE_MSIX_VECTOR => self.signals.queue_vector(self.selectors.queue).into(),
            field::QUEUE_ENABLE => queue.map_or(0, |queue| queue.ready.into()),
            // Each queue has its own notification address: its index, times the multiplier.
            field::QUEUE_NOTIFY_OFF if queue.is_some() => self.selectors.queue.into(),
            (field::QUEUE_ADDRESSES..field::QUEUE_ADDRESSES_END, 4 | 8) => {
                return self.read_address(offset, data);
            }
            _ => return,
        };
        crate::pci::fill(data, &value.to_le_bytes());
    }

    fn read_address(&self, offset: u64, data: &mut [u8]) {
        let queue = self.core.queue(self.selectors.queue.into());
        if let (Some(queue), Some((part, half))) = (queue, address(offset, data.len())) {
            let bytes = match part {
                RingPart::Descriptors => queue.desc_table,
                RingPart::Available => queue.avail_ring,
                RingPart::Used => queue.used_ring,
            };
            let bytes = match half {
                Half::Low => bytes,
                Half::High => bytes >> 32,
            };
            crate::pci::fill(data, &bytes.to_le_bytes());
        }
    }

    /// Writes of other widths than the field's, and of read-only fields, are ignored.
    pub(super) fn write_common(&mut self, offset: u64, data: &[u8]) {
        let mut bytes = [0; 8];
        crate::pci::fill(&mut bytes, data);
        let [a, b, c, d, ..] = bytes;
        let (half, word) = (u16::from_le_bytes([a, b]), u32::from_le_bytes([a, b, c, d]));
        let queue = self.selectors.queue;
        match (offset, data.len()) {
            field::DEVICE_FEATURE_SELECT => self.selectors.device_features = word,
            field::DRIVER_FEATURE_SELECT => self.selectors.driver_features = word,
            field::DRIVER_FEATURE => {
                let select = self.selectors.driver_features;
                self.core.write_driver_features(select, word);
            }
            field::CONFIG_MSIX_VECTOR => self.signals.set_config_vector(half),
            field::DEVICE_STATUS if a == 0 => self.reset(),
            field::DEVICE_STATUS => self.core.write_status(a.into()),
            field::QUEUE_SELECT => self.selectors.queue = half,
            field::QUEUE_SIZE => self.core.write_queue_size(queue.into(), half.into()),
            field::QUEUE_MSIX_VECTOR => self.signals.set_queue_vector(queue, half),
            // 4.1.4.3.2: drivers never write 0.
            field::QUEUE_ENABLE if half == 1 => self.core.write_queue_ready(queue.into(), true),
            field::QUEUE_RESET if half == 1 => self.reset_queue(queue),
            (field::QUEUE_ADDRESSES..field::QUEUE_ADDRESSES_END, _) => {
                self.write_address(offset, data);
            }
            _ => {}
        }
    }

    /// Its vector is forgotten like all that the driver said of the queue.
    fn reset_queue(&mut self, queue: u16) {
        if self.core.reset_queue(queue.into()) {
            self.signals.set_queue_vector(queue, NO_VECTOR);
        }
    }

    fn write_address(&mut self, offset: u64, data: &[u8]) {
        let Some((part, half)) = address(offset, data.len()) else {
            return;
        };
        let queue = self.selectors.queue.into();
        if let Some(word) = exact(data) {
            let word = u32::from_le_bytes(word);
            self.core.write_queue_address(queue, part, half, word);
        } else if let Some([a, b, c, d, e, f, g, h]) = exact(data) {
            let words = [(Half::Low, [a, b, c, d]), (Half::High, [e, f, g, h])];
            for (half, word) in words {
                let word = u32::from_le_bytes(word);
                self.core.write_queue_address(queue, part, half, word);
            }
        }
    }
}

/// Which address an access of `len` bytes is of, and where in it that starts: halves, or all of it.
fn address(offset: u64, len: usize) -> Option<(RingPart, Half)> {
    let part = match offset / 8 {
        4 => RingPart::Descriptors,
        5 => RingPart::Available,
        6 => RingPart::Used,
        _ => return None,
    };
    let half = match (offset % 8, len) {
        (0, 4 | 8) => Half::Low,
        (4, 4) => Half::High,
        _ => return None,
    };
    Some((part, half))
}
