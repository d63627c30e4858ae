//! virtio-net (virtio 1.2, section 5.1): registers and features apart from the packet threads.
//!
//! [`NetDevice`] is what the driver sees. At DRIVER_OK each queue pair gets a thread that owns both
//! live queues and the pair's [`NetBackend`], and moves bursts of frames with one copy each way; at
//! reset the thread ends and the back end is back in the device. [`NetControl`] is the VMM's
//! handle meanwhile.

pub mod afxdp;
pub mod backend;
mod counters;
mod device;
pub mod loopback;
mod rx;
mod shared;
mod thread;
mod tx;
mod wire;
mod worker;

pub use backend::NetBackend;
pub use counters::NetCounters;
pub use device::{NetConfig, NetDevice, NetError, QUEUE_SIZE};
pub use shared::NetControl;
