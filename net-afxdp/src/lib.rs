//! An AF_XDP client: frames between user space and the queues of a network interface, past the
//! kernel's network stack, in bursts and without a system call per frame.
//!
//! A [`Port`] is an interface with an XDP program on it; the program sends the frames that arrive at
//! each queue to the [`Queue`] that has it. A `Queue` is owned by one thread and has everything that
//! it needs: an AF_XDP socket, its four rings, its own frame memory (UMEM). There are no locks.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use net_afxdp::{Port, PortConfig};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let config = PortConfig { ifname: "eth1".to_owned(), ..PortConfig::default() };
//!     let mut port = Port::open(&config)?;
//!     println!("{} runs in {} mode", config.ifname, port.mode());
//!
//!     for mut queue in port.take_queues() {
//!         // A frame to send: queued, then handed to the kernel together with others.
//!         let hello = [0xff; 60];
//!         queue.send(hello.len(), |bytes| bytes.copy_from_slice(&hello))?;
//!         queue.flush()?;
//!
//!         // Whatever has arrived, up to 64 frames.
//!         let taken = queue.receive(64, |fragments| {
//!             println!("{} bytes", fragments.iter().map(|bytes| bytes.len()).sum::<usize>());
//!             ControlFlow::Continue(())
//!         });
//!         println!("{taken} frames, {:?}", queue.statistics()?);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What it takes
//! Linux 5.9 or later (tested with 6.1, 6.12 and 6.18), with CONFIG_XDP_SOCKETS and CONFIG_BPF_JIT.
//! Opening takes the capabilities CAP_NET_ADMIN and CAP_BPF for the program and CAP_NET_RAW for
//! the sockets; the frame memory counts against RLIMIT_MEMLOCK without CAP_IPC_LOCK. A `Queue`, once
//! open, takes none. All is done in the network namespace of the thread that calls.
//!
//! A process without any capability opens sockets that a privileged one has [`Prepared`]; programs
//! and maps of others can be used as well ([`Source`]). [`Probe`] tells beforehand what would work,
//! and what to do about what would not.
//!
//! # Promises
//! - Nothing stays behind: the program is attached with a link that the kernel undoes when the
//!   `Port` is dropped or the process ends, SIGKILL included. Nothing is pinned.
//! - [`Port::open`] opens all queues or none. A program of others is left alone, and named.
//! - No frame gets lost: each has one owner at any time, the pool or the kernel, and
//!   [`Queue::accounting`] shows who has how many. A panic in a closure loses none either.
//! - Closures see exactly the bytes of a received frame, never those of others. Frames themselves
//!   don't leave the crate, so none can be lent twice or touched while the kernel has it.
//! - A call of [`Queue`] never blocks, allocates or logs.
//!
//! # What makes it sound
//! - The memory of a frame is reached through `Frame` values alone, which are neither `Copy`
//!   nor `Clone` and are made by the pool only, one for each chunk; lending one to the kernel
//!   consumes it. What the kernel hands back is an address, which becomes a `Frame` again only if
//!   that very chunk was lent to that very side: else it is counted and not touched.
//! - The rings are walked here, with the orderings that the module `ring` explains. They are owned by the
//!   queue, together with the socket that unmaps them and the memory of the frames; what they lend
//!   out borrows from the queue, whose methods take `&mut self`: one thread at a time.
//! - A reservation in a ring changes nothing until it is committed, and a received frame is held by a
//!   guard that gives its memory back: an error or a panic in between is as if nothing had begun.
//! - Nothing here waits for another thread or for the kernel when it is dropped.
//! - The kernel is trusted: to write only to memory that it was lent, and as its ABI says.
//!
//! `unsafe` is in the modules `bpf`, `ethtool`, `handle`, `libxdp`, `ring`, `sync`, `sys`, `uapi` and `umem`, and
//! nowhere else. It is tested by a model of the ring protocol under loom, by random operations on a queue over
//! a model of the kernel (proptest), and both that and the rings under Miri.
//!
//! These don't compile. The bytes of a received frame can't be kept:
//! ```compile_fail,E0521
//! # use {net_afxdp::Queue, std::ops::ControlFlow};
//! fn keep(queue: &mut Queue) {
//!     let mut kept: Vec<&[u8]> = Vec::new();
//!     queue.receive(1, |fragments| {
//!         kept.extend(fragments);
//!         ControlFlow::Continue(())
//!     });
//! }
//! ```
//! nor can the memory of one that is sent:
//! ```compile_fail,E0521
//! # use net_afxdp::Queue;
//! fn keep(queue: &mut Queue) {
//!     let mut kept: Option<&mut [u8]> = None;
//!     let _ = queue.send(60, |bytes| kept = Some(bytes));
//! }
//! ```
//! While a frame is shown, its queue can't be used, so its memory can't be recycled:
//! ```compile_fail,E0500
//! # use {net_afxdp::Queue, std::ops::ControlFlow};
//! fn reenter(queue: &mut Queue) {
//!     queue.receive(1, |_| {
//!         queue.discard();
//!         ControlFlow::Continue(())
//!     });
//! }
//! ```
//! Two threads can't share a queue, though it can move between them:
//! ```compile_fail,E0277
//! # use net_afxdp::Queue;
//! fn share<T: Sync>() {}
//! share::<Queue>();
//! ```
//! ```
//! # use net_afxdp::Queue;
//! fn move_to_a_thread<T: Send>() {}
//! move_to_a_thread::<Queue>();
//! ```
//! And there is never a second one of it:
//! ```compile_fail,E0277
//! # use net_afxdp::Queue;
//! fn double<T: Clone>() {}
//! double::<Queue>();
//! ```

mod bpf;
mod config;
mod counters;
mod diag;
mod error;
mod ethtool;
mod features;
mod frame;
mod genl;
mod handed;
mod handle;
mod in_flight;
mod interface;
mod kind;
mod libxdp;
mod link;
mod memlock;
mod multi_buffer;
mod namespace;
mod netdev;
mod netlink;
#[cfg(test)]
mod plain_rings;
mod plugin;
mod port;
mod prepared;
mod probe;
mod program;
mod promiscuous;
mod queue;
mod ring;
#[cfg(test)]
mod ring_tests;
mod rss;
mod shared_memory;
mod socket;
mod source;
mod status;
mod steering;
mod sync;
mod sys;
mod tx_metadata;
mod uapi;
mod umem;
mod wireless;
mod xskmap;

pub use config::{MAX_FRAMES, MIN_FRAMES, PortConfig, Require};
pub use counters::{Counters, FrameAccounting, Statistics};
pub use diag::BoundSocket;
pub use error::{OpenError, QueueError};
pub use ethtool::{LinkSpeed, Offload};
pub use handed::HandedError;
pub use interface::{Interface, InterfaceError};
pub use link::{LinkEvent, LinkMonitor, LinkState};
pub use memlock::MemoryLimit;
pub use plugin::PluginError;
pub use port::Port;
pub use prepared::Prepared;
pub use probe::{Ability, Probe, Problem, Right, Trial, XdpFeatures};
pub use program::{AttachMode, ForeignProgram, ProgramError};
pub use queue::{Queue, SendError};
pub use shared_memory::{FileRange, Piece, SharedMemory};
pub use socket::SocketError;
pub use source::{Source, inherited};
pub use status::ProgramStatus;
pub use tx_metadata::{ChecksumRequest, TxMetadata, TxMetadataError};
pub use xskmap::MapError;
