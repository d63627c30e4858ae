//! The capabilities that say where the registers are (virtio 1.2, 4.1.4), and the window in
//! configuration space that reaches them without a BAR (4.1.4.9).

use super::{MSIX_BAR, NOTIFY_STRIDE, REGISTER_BAR, block};
use crate::pci::ConfigSpace;

/// Vendor-specific capability.
const VENDOR_SPECIFIC: u8 = 0x09;

/// `cfg_type` (4.1.4).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Offsets in `struct virtio_pci_cfg_cap`.
mod field {
    pub(super) const BAR: u16 = 4;
    pub(super) const OFFSET: u16 = 8;
    pub(super) const LENGTH: u16 = 12;
    pub(super) const DATA: u16 = 16;
    pub(super) const END: u16 = 20;
}

/// Bytes of `struct virtio_pci_common_cfg` as of 1.2.
const COMMON_LEN: u64 = 64;

/// Adds all of them; `notify_len` is the length of the notification block.
pub(super) fn add_capabilities(config: &mut ConfigSpace, notify_len: u64) -> Window {
    let mut add = |kind, offset, len, extra: &[u8]| {
        let body = body(kind, offset, len, extra);
        config.add_capability(VENDOR_SPECIFIC, &body)
    };
    add(COMMON_CFG, block::COMMON, COMMON_LEN, &[]);
    let stride = NOTIFY_STRIDE.to_le_bytes();
    add(NOTIFY_CFG, block::NOTIFY, notify_len, &stride);
    add(ISR_CFG, block::ISR, 1, &[]);
    add(DEVICE_CFG, block::DEVICE, block::PAGE, &[]);
    let at = add(PCI_CFG, 0, 0, &[0; 4]);
    let window = usize::from(at);
    config.make_writable(window + usize::from(field::BAR), &[0xff]);
    config.make_writable(window + usize::from(field::OFFSET), &[0xff; 12]);
    Window { at }
}

/// `struct virtio_pci_cap` from `cap_len` on.
fn body(kind: u8, offset: u64, len: u64, extra: &[u8]) -> Vec<u8> {
    let cap_len = u8::try_from(16 + extra.len()).unwrap_or(u8::MAX);
    let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let mut body = vec![cap_len, kind, REGISTER_BAR, 0, 0, 0];
    body.extend(word(offset));
    body.extend(word(len));
    body.extend_from_slice(extra);
    body
}

/// VIRTIO_PCI_CAP_PCI_CFG.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    at: u16,
}

/// The access to a BAR that the window stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) bar: u8,
    pub(super) offset: u64,
    /// 1, 2 or 4.
    pub(super) len: usize,
}

impl Window {
    /// Whether an access to configuration space touches `pci_cfg_data`.
    pub(super) fn covers(self, offset: u16, len: usize) -> bool {
        let (start, end) = (self.at + field::DATA, self.at + field::END);
        let last = usize::from(offset).saturating_add(len);
        offset < end && last > usize::from(start)
    }

    /// What the driver set up; nothing if that breaks the rules of 4.1.4.9.2.
    pub(super) fn access(self, config: &ConfigSpace) -> Option<Access> {
        let [bar] = config.get(self.at + field::BAR);
        let offset = u32::from_le_bytes(config.get(self.at + field::OFFSET));
        let len = u32::from_le_bytes(config.get(self.at + field::LENGTH));
        let known = bar == REGISTER_BAR || bar == MSIX_BAR;
        let fits = matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len);
        (known && fits).then_some(Access {
            bar,
            offset: offset.into(),
            len: usize::try_from(len).ok()?,
        })
    }

    /// `pci_cfg_data`.
    pub(super) fn load(self, config: &ConfigSpace) -> [u8; 4] {
        config.get(self.at + field::DATA)
    }

    /// Sets `pci_cfg_data`.
    pub(super) fn store(self, config: &mut ConfigSpace, data: &[u8; 4]) {
        config.put(usize::from(self.at + field::DATA), data);
    }
}
