//! An AF_XDP client: frames between user space and the queues of a network interface, without
//! copies through sockets and without a system call per packet.

mod bpf;
mod counters;
mod frame;
mod interface;
mod link;
mod memlock;
mod netlink;
mod port;
mod program;
mod queue;
mod ring;
mod socket;
mod sys;
mod umem;

pub use counters::{Counters, FrameAccounting, Statistics};
pub use interface::{Interface, InterfaceError};
pub use link::{LinkEvent, LinkMonitor, LinkState};
pub use memlock::MemoryLimit;
pub use port::{MAX_FRAMES, MIN_FRAMES, OpenError, Port, PortConfig, QueueError};
pub use program::{AttachMode, ForeignProgram, ProgramError};
pub use queue::{Queue, SendError};
pub use socket::SocketError;
