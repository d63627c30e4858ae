//! One AF_XDP socket: created, its memory registered, bound to a queue.
//!
//! Creation and binding are [`libxdp`](crate::libxdp)'s; the XDP program is not:
//! [`program`](crate::program) owns that.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
};

use crate::{
    handle::{Binding, CopyMode, Handle, Rings},
    memlock::MemoryLimit,
    netlink::{Asker, Which},
    umem::Umem,
};

/// How long a busy queue is tried again. The kernel frees a queue some 50 ms after its socket was
/// closed; on a loaded machine it took more than a second.
pub(crate) const BUSY_PATIENCE: Duration = Duration::from_millis(3000);

/// Pause between two tries.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// What a `sendto` should transmit at most in copy mode, in frames. More makes no difference.
const TX_BUDGET: u32 = 256;

/// What to open, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketOptions {
    /// Index of the interface.
    pub(crate) ifindex: u32,
    /// Queue of the interface.
    pub(crate) queue: u32,
    /// Whether the driver may, or must, use the frames in place.
    pub(crate) copy: CopyMode,
    /// Frames may have several descriptors. The kernel must know of that.
    pub(crate) multi_buffer: bool,
    /// Entries of the rx, tx and completion rings, a power of two. The fill ring has twice as many.
    pub(crate) ring_size: u32,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// `socket()` refused.
    #[error(
        "cannot create an AF_XDP socket: {0}. It needs the capability CAP_NET_RAW, and a kernel \
         built with CONFIG_XDP_SOCKETS"
    )]
    Create(#[source] io::Error),
    /// The UMEM is more memory than this user may lock.
    #[error(
        "cannot lock {need} KiB of memory for the frames{}: {source}; the limit (RLIMIT_MEMLOCK) is \
         {limit}, for all AF_XDP memory of this user together. Raise it (ulimit -l), or give the \
         process the capability CAP_IPC_LOCK, or use fewer frames{}",
        shared_part(*shared), if *shared == 0 { "" } else { ", or send none in place" }
    )]
    LockedMemory {
        /// What the frames and the memory to send from in place need, in KiB.
        need: u64,
        /// What the latter needs of it, in KiB.
        shared: u64,
        /// What the process may lock.
        limit: MemoryLimit,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody has set the socket up already.
    #[error(
        "the socket that was handed over for it has frame memory already: {0}. It must be one that \
         nobody has set up or bound, for the memory is locked for the process that uses it"
    )]
    InUse(#[source] io::Error),
    /// The kernel does not know of TX metadata.
    #[error(
        "TX metadata is asked for (tx-metadata=on), but the kernel does not register memory for it: {0}. \
         Linux 6.8 and later do; use tx-metadata=auto or off on this one"
    )]
    TxMetadata(#[source] io::Error),
    /// The UMEM could not be mapped or registered for another reason.
    #[error("cannot register {need} KiB of memory for the frames with the kernel: {source}")]
    Register {
        /// What the frames need, in KiB.
        need: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Another socket has the queue.
    #[error(
        "another AF_XDP socket is bound to it, and still was after {} ms of trying: {source}. \
         Find its process with `ss --xdp -p`",
        waited.as_millis()
    )]
    Busy {
        /// How long it was tried.
        waited: Duration,
        /// What the system said.
        source: io::Error,
    },
    /// The interface has fewer queues.
    #[error(
        "the kernel refused to bind to it: {0}. Most likely the interface has fewer queues in use; \
         `ethtool -l` shows them"
    )]
    NoSuchQueue(#[source] io::Error),
    /// The driver does not do without copies, and that is required.
    #[error(
        "zero-copy is required, but was refused: {0}. What can be reached is copy mode; require \
         less, or use an interface whose driver has AF_XDP zero-copy"
    )]
    ZeroCopy(#[source] io::Error),
    /// `bind()` or the rings failed for another reason.
    #[error("cannot bind an AF_XDP socket to it: {0}")]
    Bind(#[source] io::Error),
}

/// A bound AF_XDP socket, or a model of one, with its rings and the memory of its frames.
#[derive(Debug)]
pub(crate) struct Socket<K = Handle> {
    pub(crate) rings: Rings<K>,
    /// After the rings: the socket goes first.
    pub(crate) umem: Umem,
    /// Whether the driver reads and writes the frames in place (`XDP_OPTIONS`).
    pub(crate) zero_copy: bool,
    /// Whether checksums may be left to the card; the memory has room for the metadata then.
    pub(crate) tx_checksum: bool,
}

impl Socket {
    /// Registers `umem` with a new socket and binds it. A queue that is busy is tried again for a
    /// bounded time.
    ///
    /// # Errors
    /// [`SocketError`]; nothing is left behind.
    pub(crate) fn set_up(
        fd: OwnedFd,
        umem: Umem,
        options: &SocketOptions,
    ) -> Result<Self, SocketError> {
        let mut handle = Handle::register(fd, &umem, options.ring_size)
            .map_err(|source| explain_registration(&umem, source))?;
        bind_patiently(&mut handle, options)?;

        // Absent before Linux 6.17; then each sendto takes 32 frames.
        let budget = TX_BUDGET.min(options.ring_size);
        if let Err(error) = crate::sys::set_tx_budget(handle.as_fd(), budget) {
            tracing::debug!(%error, "this kernel sends at most 32 frames per system call");
        }
        let zero_copy = rustix::net::sockopt::xdp_options(handle.as_fd())
            .map_err(|error| SocketError::Bind(error.into()))?
            .contains(rustix::net::xdp::XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        let rings = Rings::new(handle).map_err(SocketError::Bind)?;
        Ok(Self {
            rings,
            umem,
            zero_copy,
            tx_checksum: false,
        })
    }
}

/// What is on the other side of the rings.
pub(crate) trait Kernel {
    /// Tells it that the tx ring has entries. Does not block.
    ///
    /// # Errors
    /// See the callers; `EBUSY` means that one frame was lost.
    fn kick_tx(&self) -> Result<(), Errno>;

    /// Tells it that the fill ring has entries. Does not block.
    ///
    /// # Errors
    /// The system's.
    fn kick_rx(&self) -> Result<(), Errno>;

    /// Wakes the card's driver, as [`kick_tx`](Self::kick_tx) does too, but for a socket that prefers busy polling: there
    /// that one polls the card's receive side instead (net/xdp/xsk.c, `xsk_no_wakeup`).
    fn wake_driver(&self);
}

impl Kernel for Handle {
    fn kick_tx(&self) -> Result<(), Errno> {
        rustix::net::send(self, &[], rustix::net::SendFlags::DONTWAIT).map(drop)
    }

    fn kick_rx(&self) -> Result<(), Errno> {
        let nothing = &mut [0u8; 0];
        rustix::net::recv(self, nothing, rustix::net::RecvFlags::DONTWAIT).map(drop)
    }

    fn wake_driver(&self) {
        // `xsk_poll` does it whatever is asked for. Without memory for the call, the next flush tries again.
        let _ = poll(
            &mut [PollFd::new(self, PollFlags::OUT)],
            Some(&Timespec::default()),
        );
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.kernel.as_fd()
    }
}

/// A socket that is neither set up nor bound, in the calling thread's network namespace.
///
/// # Errors
/// [`SocketError::Create`].
pub(crate) fn create() -> Result<OwnedFd, SocketError> {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, flags, None)
        .map_err(|error| SocketError::Create(error.into()))
}

fn bind_patiently(handle: &mut Handle, options: &SocketOptions) -> Result<(), SocketError> {
    let start = Instant::now();
    let mut told = false;
    loop {
        let Err(source) = bind(handle, options) else {
            return Ok(());
        };
        let waited = start.elapsed();
        match source.raw_os_error() {
            Some(libc::EBUSY) if waited < BUSY_PATIENCE => {
                if !told && waited > BUSY_PATIENCE / 10 {
                    tracing::info!(queue = options.queue, "the queue is busy, waiting for it");
                    told = true;
                }
                thread::sleep(BUSY_PAUSE);
            }
            Some(libc::EBUSY) => return Err(SocketError::Busy { waited, source }),
            // The interface went meanwhile, which has nothing to do with copies.
            Some(libc::ENODEV) => return Err(SocketError::Bind(source)),
            _ if options.copy == CopyMode::ZeroCopy => {
                return Err(SocketError::ZeroCopy(source));
            }
            Some(libc::EINVAL) => return Err(SocketError::NoSuchQueue(source)),
            _ => return Err(SocketError::Bind(source)),
        }
    }
}

fn bind(handle: &mut Handle, options: &SocketOptions) -> io::Result<()> {
    // Looked up at the last moment, as names change.
    let interface = Asker::open()?.ask(Which::Index(options.ifindex))?.name;
    handle.bind(&Binding {
        interface: &interface,
        ifindex: options.ifindex,
        queue: options.queue,
        copy: options.copy,
        multi_buffer: options.multi_buffer,
        ring_size: options.ring_size,
    })
}

fn shared_part(kib: u64) -> String {
    match kib {
        0 => String::new(),
        _ => format!(" ({kib} of them to send from in place)"),
    }
}

fn explain_registration(umem: &Umem, source: io::Error) -> SocketError {
    let need = umem.length() as u64 / 1024;
    let shared = umem.shared_length() / 1024;
    match source.raw_os_error() {
        // xdp_umem_account_pages says ENOBUFS; pinning pages says ENOMEM, a security policy EPERM.
        Some(libc::ENOBUFS | libc::ENOMEM | libc::EPERM) => SocketError::LockedMemory {
            need,
            shared,
            limit: MemoryLimit::now(),
            source,
        },
        Some(libc::EINVAL) if umem.tx_metadata_len() > 0 => SocketError::TxMetadata(source),
        // Only a socket that others created has any.
        Some(libc::EBUSY) => SocketError::InUse(source),
        _ => SocketError::Register { need, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_was_tried_what_the_system_said_and_what_to_do() {
        let system = io::Error::from_raw_os_error;
        let cases = [
            (
                SocketError::Create(system(libc::EPERM)).to_string(),
                [
                    "create an AF_XDP socket",
                    "Operation not permitted",
                    "CAP_NET_RAW",
                ],
            ),
            (
                SocketError::LockedMemory {
                    need: 16384,
                    shared: 0,
                    limit: MemoryLimit::now(),
                    source: system(libc::ENOBUFS),
                }
                .to_string(),
                ["lock 16384 KiB", "No buffer space", "ulimit -l"],
            ),
            (
                SocketError::LockedMemory {
                    need: 49152,
                    shared: 32768,
                    limit: MemoryLimit::now(),
                    source: system(libc::ENOBUFS),
                }
                .to_string(),
                [
                    "lock 49152 KiB",
                    "32768 of them to send from in place",
                    "send none in place",
                ],
            ),
            (
                SocketError::Register {
                    need: 16384,
                    source: system(libc::EINVAL),
                }
                .to_string(),
                ["register 16384 KiB", "Invalid argument", "with the kernel"],
            ),
            (
                SocketError::Busy {
                    waited: BUSY_PATIENCE,
                    source: system(libc::EBUSY),
                }
                .to_string(),
                ["another AF_XDP socket", "after 3000 ms", "ss --xdp -p"],
            ),
            (
                SocketError::NoSuchQueue(system(libc::EINVAL)).to_string(),
                ["refused to bind", "Invalid argument", "ethtool -l"],
            ),
            (
                SocketError::TxMetadata(system(libc::EINVAL)).to_string(),
                ["TX metadata is asked", "Invalid argument", "Linux 6.8"],
            ),
            (
                SocketError::InUse(system(libc::EBUSY)).to_string(),
                ["handed over", "resource busy", "nobody has set up"],
            ),
            (
                SocketError::ZeroCopy(system(libc::EOPNOTSUPP)).to_string(),
                ["zero-copy is required", "not supported", "require less"],
            ),
            (
                SocketError::Bind(system(libc::ENODEV)).to_string(),
                ["cannot bind", "AF_XDP socket", "No such device"],
            ),
        ];
        for (text, parts) in cases {
            for part in parts {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
        }
    }
}
