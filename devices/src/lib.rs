//! The devices of a small x86_64 virtual machine: virtio-net, virtio-blk, virtio-rng on virtio
//! transports, and the few platform devices that a stock kernel wants.
//!
//! Nothing here knows of KVM. A device is told where guest memory is, gets eventfds for kicks and
//! for interrupts, and can be driven by any VMM, or by a test.
//!
//! A network card on a loopback wire, behind MMIO registers:
//!
//! ```
//! use std::sync::Arc;
//!
//! use devices::{
//!     GuestRam,
//!     bus::BusDevice,
//!     virtio::{
//!         mmio::MmioTransport,
//!         net::{NetConfig, NetDevice, loopback::Loopback},
//!     },
//! };
//! use vm_memory::GuestAddress;
//! use vmm_sys_util::eventfd::EventFd;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ram = GuestRam::from_ranges(&[(GuestAddress(0), 1 << 20)])?;
//! let (near, _far) = Loopback::pair(1514)?;
//! let on_fault = Arc::new(|reason: &str| eprintln!("{reason}"));
//! let config = NetConfig::new("net0", [0x52, 0x54, 0, 0, 0, 1], on_fault);
//! let card = NetDevice::new(config, vec![near])?;
//! let control = card.control();
//! let mut registers = MmioTransport::new(ram, Box::new(card), EventFd::new(0)?)?;
//!
//! let mut magic = [0; 4];
//! registers.read(0, &mut magic);
//! assert_eq!(&magic, b"virt");
//! control.set_link(false);
//! # Ok(())
//! # }
//! ```

pub mod bus;
pub mod log;
pub mod pci;
pub mod placement;
pub mod power;
pub mod pvpanic;
#[cfg(debug_assertions)]
#[doc(hidden)]
pub mod sabotage;
pub mod serial;
pub mod testing;
pub mod threads;
pub mod virtio;

/// Guest RAM as all devices see it: regions of a shared memfd, mapped once for the VM's life.
///
/// Cloning copies a short list of `Arc`s, never the memory.
pub type GuestRam = vm_memory::GuestMemoryMmap<()>;
