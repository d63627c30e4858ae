//! What bare guests are made of: entry by PVH, a polling virtio-net driver, a serial port, power-off.
//!
//! A guest sets itself up in ring 0 in some thirty instructions and then runs in ring 3, with interrupts off and every I/O
//! port allowed (IOPL 3): a KVM without hardware virtualization runs ring 3 at full speed and emulates ring 0. There
//! is no heap, no interrupt handler, no second CPU; an exception is a triple fault.
//!
//! Each program in `src/bin` defines `guest_main` by [`main`]. It runs under Ringwire and under QEMU's
//! `microvm`, with virtio-mmio devices that the command line names (`virtio_mmio.device=`).
#![cfg_attr(not(test), no_std)]

pub mod boot;
pub mod clock;
pub mod cmdline;
pub mod frame;
#[cfg(not(test))]
mod mem;
pub mod memory;
pub mod mmio;
pub mod net;
pub mod odd;
#[cfg(not(test))]
mod panic;
pub mod port;
pub mod power;
pub mod ring;
pub mod serial;

/// Makes `$function`, an `fn(Cmdline) -> !`, what runs after [`boot`].
#[macro_export]
macro_rules! main {
    ($function:path) => {
        /// Called by the entry code.
        #[unsafe(no_mangle)]
        extern "C" fn guest_main(start_info: u64) -> ! {
            $function($crate::boot::cmdline(start_info))
        }
    };
}
