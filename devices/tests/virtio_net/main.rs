//! virtio-net behind MMIO registers, driven by a guest's driver in real guest memory, with a
//! loopback wire. Numbers in comments are those of the project's catalogue of hostile input.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails, also in its helpers"
)]

mod afxdp;
mod afxdp_pairs;
mod bursts;
mod coalescing;
mod control;
mod fault;
mod features;
mod frames;
mod guest;
mod in_place;
mod large;
mod life;
mod mmio;
mod offload_guest;
mod offload_hidden;
mod offload_kernel;
mod offload_local;
mod offload_metadata;
mod offload_rx;
mod offload_tx;
mod offload_uncut;
mod pairs;
mod pairs_control;
mod pairs_guest;
mod poll;
mod queue_reset;
mod queue_reset_traffic;
mod random;
mod rate;
mod rings;
mod rings_high;
mod rings_layout;
mod short;
mod statistics;
mod threads;

/// The transport of all tests here that name none.
const FACE: devices::testing::Face = devices::testing::Face::Mmio;
