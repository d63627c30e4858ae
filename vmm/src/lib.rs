//! Ringwire as a library: a small KVM virtual machine monitor whose network card is an AF_XDP
//! socket.
//!
//! [`VmConfig`] says what is wanted, [`Vm::new`] builds it or says in a sentence why not,
//! [`Vm::run`] is its life, and [`ExitReport`] tells how it ended:
//!
//! ```no_run
//! use vmm::{Vm, VmConfig};
//!
//! let mut config = VmConfig::new("vmlinuz");
//! config.initrd = Some("guest.cpio".into());
//! config.cpus = 2;
//! config.memory = 512 << 20;
//! let report = Vm::new(&config)?.run();
//! println!("{}", report.reason);
//! # Ok::<(), vmm::BuildError>(())
//! ```
//!
//! The process's part in it: a VM takes the signal SIGRTMIN (to bring vCPU threads out of
//! `KVM_RUN`), and nothing else of the process unless asked to ([`Vm::end_on`]).

mod attendant;
pub mod boot;
mod builder;
pub mod check;
pub mod cli;
pub mod cmdline;
pub mod config;
pub mod confine;
mod console;
pub mod exit;
mod files;
pub mod jail;
pub mod kernel;
pub mod kvm;
pub mod log;
pub mod memory;
mod network;
pub mod open;
mod pci;
pub mod privileges;
pub mod probe;
mod processes;
pub mod signals;
pub mod size;
pub mod terminal;
mod vcpu;
mod vm;
pub mod x86_64;

pub use builder::BuildError;
pub use config::VmConfig;
pub use exit::ExitReason;
pub use network::{NetdevReport, NetworkError};
pub use vm::{COUNTERS, ExitReport, StopHandle, Vm};
