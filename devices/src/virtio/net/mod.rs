//! virtio-net (virtio 1.2, section 5.1): registers and features apart from the packet threads.
//!
//! [`NetDevice`] is what the driver sees. At DRIVER_OK the first queue pair gets a thread that owns
//! both live queues and the pair's [`NetBackend`], and moves bursts of frames with one copy each way;
//! so does each further pair when the driver says, through the control queue, that it uses it. At
//! reset the threads end and the back ends are back in the device. [`NetControl`] is the VMM's
//! handle meanwhile.
//!
//! What the interface queue of a pair receives that the driver does not use goes to one of the pairs
//! that it does use: no frame is lost to a guest with fewer vCPUs than there are queues.

pub mod afxdp;
pub mod backend;
mod carrier;
mod coalesce;
mod config;
mod control;
mod counters;
mod device;
mod features;
mod filter;
mod in_place;
pub mod loopback;
pub mod offload;
mod offloads;
mod pairs;
mod poll;
mod rate;
mod rx;
mod shared;
mod thread;
mod tx;
mod wire;
mod worker;

pub use backend::NetBackend;
pub use config::{LinkSpeed, NetConfig, NetError};
pub use counters::NetCounters;
pub use device::{NetDevice, QUEUE_SIZE};
pub use offloads::Offloads;
pub use poll::BusyPoll;
pub use rate::{RateError, RateLimit};
pub use shared::NetControl;
