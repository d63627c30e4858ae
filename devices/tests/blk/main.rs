//! virtio-blk, driven through its registers and rings by a guest's driver without a guest. What it
//! says it did is checked against the image file. Needs no privileges.
#![expect(clippy::unwrap_used, reason = "a panic is the failure report")]

mod driver;
mod hostile;
mod opening;
mod ranges;
mod requests;
mod resets;

/// The transport of all tests here.
const FACE: devices::testing::Face = devices::testing::Face::Mmio;
