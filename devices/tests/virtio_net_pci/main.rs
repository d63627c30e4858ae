//! virtio-net as a PCI function: the tests of `virtio_net` once more behind the other transport, and
//! those of PCI itself. Numbers in comments are those of the project's catalogue of hostile input.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails, also in its helpers"
)]

#[path = "../virtio_net/afxdp.rs"]
mod afxdp;
#[path = "../virtio_net/coalescing.rs"]
mod coalescing;
#[path = "../virtio_net/control.rs"]
mod control;
#[path = "../virtio_net/fault.rs"]
mod fault;
#[path = "../virtio_net/features.rs"]
mod features;
#[path = "../virtio_net/frames.rs"]
mod frames;
#[path = "../virtio_net/guest.rs"]
mod guest;
#[path = "../virtio_net/in_place.rs"]
mod in_place;
#[path = "../virtio_net/life.rs"]
mod life;
#[path = "../virtio_net/offload_guest.rs"]
mod offload_guest;
#[path = "../virtio_net/offload_rx.rs"]
mod offload_rx;
#[path = "../virtio_net/offload_tx.rs"]
mod offload_tx;
#[path = "../virtio_net/offload_uncut.rs"]
mod offload_uncut;
#[path = "../virtio_net/pairs.rs"]
mod pairs;
#[path = "../virtio_net/pairs_control.rs"]
mod pairs_control;
#[path = "../virtio_net/pairs_guest.rs"]
mod pairs_guest;
#[path = "../virtio_net/queue_reset.rs"]
mod queue_reset;
#[path = "../virtio_net/queue_reset_traffic.rs"]
mod queue_reset_traffic;
#[path = "../virtio_net/random.rs"]
mod random;
#[path = "../virtio_net/rings.rs"]
mod rings;
#[path = "../virtio_net/rings_high.rs"]
mod rings_high;
#[path = "../virtio_net/rings_layout.rs"]
mod rings_layout;
#[path = "../virtio_net/statistics.rs"]
mod statistics;

mod bars;
mod bus_master;
mod bus_master_held;
mod bus_master_storm;
mod msix;
mod registers;
mod wild;
mod window;

/// The transport of all tests here.
const FACE: devices::testing::Face = devices::testing::Face::Pci;
