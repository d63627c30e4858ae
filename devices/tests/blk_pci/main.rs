//! virtio-blk as a PCI function: the tests of `blk` once more behind the other transport.

#![expect(clippy::unwrap_used, reason = "a panic is the failure report")]

mod bus_master;
#[path = "../blk/driver.rs"]
mod driver;
#[path = "../blk/hostile.rs"]
mod hostile;
#[path = "../blk/ranges.rs"]
mod ranges;
#[path = "../blk/requests.rs"]
mod requests;
#[path = "../blk/resets.rs"]
mod resets;

/// The transport of all tests here.
const FACE: devices::testing::Face = devices::testing::Face::Pci;
