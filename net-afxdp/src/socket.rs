#![expect(unsafe_code, reason = "calls libxdp, which maps the rings")]
//! One AF_XDP socket: created, its memory registered, its rings mapped, bound to a queue.
//!
//! libxdp does the set-up (it knows the layouts of all kernels); the rings are walked by
//! [`ring`](crate::ring), since libxdp exports its ring helpers as calls, one per packet. The XDP
//! program is not libxdp's either: [`program`](crate::program) owns that.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
    ptr::{self, NonNull},
    thread,
    time::{Duration, Instant},
};

use libxdp_sys as xdp;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
};

use crate::{
    memlock::MemoryLimit,
    netlink::{Asker, Which},
    ring::{Consumer, Descriptor, Layout, Producer},
    umem::{CHUNK_SIZE, Umem},
};

/// How long a busy queue is tried again. The kernel frees a queue some 50 ms after its socket was
/// closed, later on a loaded machine.
const BUSY_PATIENCE: Duration = Duration::from_millis(1000);

/// Pause between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// What a `sendto` should transmit at most in copy mode, in frames. More makes no difference.
const TX_BUDGET: u32 = 256;

/// What to bind to, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding {
    /// Index of the interface.
    pub(crate) ifindex: u32,
    /// Queue of the interface.
    pub(crate) queue: u32,
    /// Never zero-copy.
    pub(crate) copy: bool,
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
        "cannot lock {need} KiB of memory for the frames: {source}; the limit (RLIMIT_MEMLOCK) is \
         {limit}, for all AF_XDP memory of this user together. Raise it (ulimit -l), or give the \
         process the capability CAP_IPC_LOCK, or use fewer frames"
    )]
    LockedMemory {
        /// What the frames need, in KiB.
        need: u64,
        /// What the process may lock.
        limit: MemoryLimit,
        /// What the system said.
        source: io::Error,
    },
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
    #[error("the kernel refused to bind to it ({0}): the interface has no such queue")]
    NoSuchQueue(#[source] io::Error),
    /// `bind()` or the rings failed for another reason.
    #[error("cannot bind an AF_XDP socket to it: {0}")]
    Bind(#[source] io::Error),
}

/// What libxdp writes the rings' places to, and reads them from again when it deletes the socket.
#[derive(Debug)]
struct Places {
    fill: xdp::xsk_ring_prod,
    completion: xdp::xsk_ring_cons,
    rx: xdp::xsk_ring_cons,
    tx: xdp::xsk_ring_prod,
}

impl Places {
    /// Nothing mapped yet.
    fn new() -> Self {
        Self {
            fill: no_producer(),
            completion: no_consumer(),
            rx: no_consumer(),
            tx: no_producer(),
        }
    }
}

/// libxdp's objects, in the order in which they come to be; deleted in the reverse.
#[derive(Debug)]
struct Handle {
    socket: *mut xdp::xsk_socket,
    umem: *mut xdp::xsk_umem,
    /// From `Box::into_raw`: libxdp keeps pointers into it.
    places: NonNull<Places>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created by `Handle::register` and `bind`, deleted once; null is allowed. Unmaps
        // the rings.
        unsafe { xdp::xsk_socket__delete(self.socket) };
        // SAFETY: as above, and its socket is gone. Closes the file descriptor.
        let result = unsafe { xdp::xsk_umem__delete(self.umem) };
        debug_assert_eq!(result, 0, "xsk_umem__delete");
        // SAFETY: from Box::into_raw in `register`; libxdp, which also had it, is done.
        drop(unsafe { Box::from_raw(self.places.as_ptr()) });
    }
}

impl Handle {
    /// Registers the memory through `fd`, which this takes, and maps the fill and completion rings.
    fn register(fd: OwnedFd, umem: &Umem, ring_size: u32) -> Result<Self, SocketError> {
        let need = umem.length() as u64;
        let config = xdp::xsk_umem_config {
            fill_size: ring_size * 2,
            comp_size: ring_size,
            frame_size: CHUNK_SIZE,
            frame_headroom: 0,
            flags: 0,
        };
        let places = NonNull::from(Box::leak(Box::new(Places::new())));
        let mut handle = Self {
            socket: ptr::null_mut(),
            umem: ptr::null_mut(),
            places,
        };
        // SAFETY: plain address arithmetic on a live allocation.
        let fill = unsafe { &raw mut (*places.as_ptr()).fill };
        // SAFETY: as above.
        let completion = unsafe { &raw mut (*places.as_ptr()).completion };
        // SAFETY: the memory outlives the socket (see `Socket`), the places and the
        // configuration outlive the call. libxdp closes the fd when it fails, and with the umem.
        let result = unsafe {
            xdp::xsk_umem__create_with_fd(
                &raw mut handle.umem,
                fd.into_raw_fd(),
                umem.base().as_ptr().cast(),
                need,
                fill,
                completion,
                &raw const config,
            )
        };
        if result == 0 {
            return Ok(handle);
        }
        handle.umem = ptr::null_mut();
        let source = io::Error::from_raw_os_error(-result);
        let need = need / 1024;
        match -result {
            // xdp_umem_account_pages says ENOBUFS; pinning says ENOMEM, and EPERM with a limit of 0.
            libc::ENOBUFS | libc::ENOMEM | libc::EPERM => Err(SocketError::LockedMemory {
                need,
                limit: MemoryLimit::now(),
                source,
            }),
            _ => Err(SocketError::Register { need, source }),
        }
    }

    /// Maps the rx and tx rings and binds. May be called again after it failed.
    fn bind(&mut self, binding: &Binding) -> io::Result<()> {
        // By name, since libxdp takes nothing else; looked up at the last moment, as names change.
        let name = Asker::open()?.ask(Which::Index(binding.ifindex))?.name;
        let name = CString::new(name)?;
        let copy = if binding.copy { libc::XDP_COPY } else { 0 };
        let config = xdp::xsk_socket_config {
            rx_size: binding.ring_size,
            tx_size: binding.ring_size,
            __bindgen_anon_1: xdp::xsk_socket_config__bindgen_ty_1 {
                libxdp_flags: xdp::XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
            },
            // For the program, which libxdp leaves alone.
            xdp_flags: 0,
            bind_flags: libc::XDP_USE_NEED_WAKEUP | copy,
        };
        // SAFETY: plain address arithmetic on a live allocation.
        let rx = unsafe { &raw mut (*self.places.as_ptr()).rx };
        // SAFETY: as above.
        let tx = unsafe { &raw mut (*self.places.as_ptr()).tx };
        // SAFETY: the umem is registered and has no other socket; the places live as long as the
        // handle; name and configuration outlive the call.
        let result = unsafe {
            xdp::xsk_socket__create(
                &raw mut self.socket,
                name.as_ptr(),
                binding.queue,
                self.umem,
                rx,
                tx,
                &raw const config,
            )
        };
        if result == 0 {
            return Ok(());
        }
        self.socket = ptr::null_mut();
        Err(io::Error::from_raw_os_error(-result))
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the umem is not null once `register` has succeeded.
        let fd = unsafe { xdp::xsk_umem__fd(self.umem) };
        // SAFETY: open as long as the handle lives.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

/// A bound AF_XDP socket with its four rings.
///
/// Owns the memory of the frames, so that it outlives the rings.
#[derive(Debug)]
pub(crate) struct Socket {
    /// To the kernel: frames to receive into.
    pub(crate) fill: Producer<u64>,
    /// From the kernel: frames that were sent.
    pub(crate) completion: Consumer<u64>,
    /// From the kernel: frames that were received.
    pub(crate) rx: Consumer<Descriptor>,
    /// To the kernel: frames to send.
    pub(crate) tx: Producer<Descriptor>,
    /// After the rings, whose memory it unmaps, and before the frames' memory.
    handle: Handle,
    /// The frames' memory.
    pub(crate) umem: Umem,
    zero_copy: bool,
}

// SAFETY: libxdp's objects are used by this value alone and are not tied to a thread.
unsafe impl Send for Socket {}

impl Socket {
    /// Registers `umem` and binds. A queue that is busy is tried again for a bounded time.
    ///
    /// # Errors
    /// [`SocketError`]; nothing is left behind.
    pub(crate) fn open(umem: Umem, binding: &Binding) -> Result<Self, SocketError> {
        let fd = rustix::net::socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| SocketError::Create(error.into()))?;
        let mut handle = Handle::register(fd, &umem, binding.ring_size)?;
        bind_patiently(&mut handle, binding)?;

        // Absent before Linux 6.17; then each sendto takes 32 frames.
        let budget = TX_BUDGET.min(binding.ring_size);
        if let Err(error) = crate::sys::set_tx_budget(handle.as_fd(), budget) {
            tracing::debug!(%error, "this kernel sends at most 32 frames per system call");
        }
        let zero_copy = rustix::net::sockopt::xdp_options(handle.as_fd())
            .map_err(|error| SocketError::Bind(error.into()))?
            .contains(rustix::net::xdp::XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        // SAFETY: libxdp wrote it in `register` and `bind`, and reads it again at the end only.
        let places = unsafe { handle.places.as_ref() };
        // SAFETY: libxdp mapped the ring; the mapping is undone by `handle`, which is dropped
        // after the rings. The socket was just made, so this is the only producer. The same holds
        // for the other three.
        let fill = unsafe { Producer::new(producer_layout(&places.fill)?) };
        // SAFETY: as above.
        let completion = unsafe { Consumer::new(consumer_layout(&places.completion)?) };
        // SAFETY: as above.
        let rx = unsafe { Consumer::new(consumer_layout(&places.rx)?) };
        // SAFETY: as above.
        let tx = unsafe { Producer::new(producer_layout(&places.tx)?) };
        Ok(Self {
            fill,
            completion,
            rx,
            tx,
            handle,
            umem,
            zero_copy,
        })
    }

    /// Whether the driver reads and writes the frames in place (`XDP_OPTIONS`).
    pub(crate) fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Tells the kernel that the tx ring has entries. Does not block.
    ///
    /// # Errors
    /// See the callers; `EBUSY` means that one frame was lost.
    pub(crate) fn kick_tx(&self) -> Result<(), Errno> {
        rustix::net::send(self.as_fd(), &[], rustix::net::SendFlags::DONTWAIT).map(drop)
    }

    /// Tells the kernel that the fill ring has entries. Does not block.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn kick_rx(&self) -> Result<(), Errno> {
        rustix::net::recv(
            self.as_fd(),
            &mut [0u8; 0],
            rustix::net::RecvFlags::DONTWAIT,
        )
        .map(drop)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

fn bind_patiently(handle: &mut Handle, binding: &Binding) -> Result<(), SocketError> {
    let start = Instant::now();
    loop {
        let Err(source) = handle.bind(binding) else {
            return Ok(());
        };
        let waited = start.elapsed();
        match source.raw_os_error() {
            Some(libc::EBUSY) if waited < BUSY_PATIENCE => thread::sleep(BUSY_PAUSE),
            Some(libc::EBUSY) => return Err(SocketError::Busy { waited, source }),
            Some(libc::EINVAL) => return Err(SocketError::NoSuchQueue(source)),
            _ => return Err(SocketError::Bind(source)),
        }
    }
}

fn no_producer() -> xdp::xsk_ring_prod {
    xdp::xsk_ring_prod {
        cached_prod: 0,
        cached_cons: 0,
        mask: 0,
        size: 0,
        producer: ptr::null_mut(),
        consumer: ptr::null_mut(),
        ring: ptr::null_mut(),
        flags: ptr::null_mut(),
    }
}

fn no_consumer() -> xdp::xsk_ring_cons {
    xdp::xsk_ring_cons {
        cached_prod: 0,
        cached_cons: 0,
        mask: 0,
        size: 0,
        producer: ptr::null_mut(),
        consumer: ptr::null_mut(),
        ring: ptr::null_mut(),
        flags: ptr::null_mut(),
    }
}

/// The ring's places as libxdp found them, checked: it has done its work, so nothing is null.
fn producer_layout<T>(ring: &xdp::xsk_ring_prod) -> Result<Layout<T>, SocketError> {
    layout(
        ring.producer,
        ring.consumer,
        ring.flags,
        ring.ring.cast(),
        ring.size,
    )
}

fn consumer_layout<T>(ring: &xdp::xsk_ring_cons) -> Result<Layout<T>, SocketError> {
    layout(
        ring.producer,
        ring.consumer,
        ring.flags,
        ring.ring.cast(),
        ring.size,
    )
}

fn layout<T>(
    producer: *mut u32,
    consumer: *mut u32,
    flags: *mut u32,
    entries: *mut T,
    size: u32,
) -> Result<Layout<T>, SocketError> {
    let unmapped = || SocketError::Bind(io::Error::other("libxdp left a ring unmapped"));
    Ok(Layout {
        producer: NonNull::new(producer).ok_or_else(unmapped)?,
        consumer: NonNull::new(consumer).ok_or_else(unmapped)?,
        flags: NonNull::new(flags).ok_or_else(unmapped)?,
        entries: NonNull::new(entries).ok_or_else(unmapped)?,
        size,
    })
}
