//! Network cards whose driver reads and writes frames in place (XDP zero-copy), and frames of several chunks: what takes a
//! kernel newer than Debian's. `make test` runs these, in a lab with such a kernel and two cards (`tests/lab/run --cards`).

#![expect(
    clippy::unwrap_used,
    reason = "a panic is the failure report, in the helpers of the tests, too"
)]

mod check;
mod faults;
mod frame;
mod guest;
mod large;
// On the newest kernel: Linux 7.3 wants sockets handed over in another way than older ones.
#[path = "../system/open.rs"]
mod open;
mod port;
mod tx_metadata;
mod virtio;
