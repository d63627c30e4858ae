//! The devices of a small x86_64 virtual machine: virtio-net, virtio-blk, virtio-rng on virtio
//! transports, and the few platform devices that a stock kernel wants.
//!
//! Nothing here knows of KVM. A device is told where guest memory is, gets eventfds for kicks and
//! for interrupts, and can be driven by any VMM, or by a test.

pub mod bus;
pub mod power;
pub mod pvpanic;
pub mod serial;
pub mod testing;
pub mod virtio;

/// Guest RAM as all devices see it: regions of a shared memfd, mapped once for the VM's life.
///
/// Cloning copies a short list of `Arc`s, never the memory.
pub type GuestRam = vm_memory::GuestMemoryMmap<()>;
