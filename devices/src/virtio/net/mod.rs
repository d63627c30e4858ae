//! virtio-net (virtio 1.2, section 5.1): registers and features apart from the packet threads.

pub mod backend;

pub use backend::NetBackend;
