#![expect(unsafe_code, reason = "takes over the rings that were mapped for it")]
//! A socket with its frame memory and its rings, and what has set them up: libxdp, or, for what that
//! can't ask for, the kernel's own interface.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{
    libxdp,
    ring::{Consumer, Descriptor, Layout, Producer},
    uapi,
    umem::Umem,
};

/// Who copies frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyMode {
    /// Nobody if the driver can do that, else the kernel.
    Best,
    /// The kernel.
    Copy,
    /// Nobody: binding fails where the driver can't do that.
    ZeroCopy,
}

impl CopyMode {
    fn flags(self) -> u16 {
        match self {
            Self::Best => 0,
            Self::Copy => libc::XDP_COPY,
            Self::ZeroCopy => libc::XDP_ZEROCOPY,
        }
    }
}

/// What to bind to, and how.
#[derive(Debug)]
pub(crate) struct Binding<'a> {
    /// Name of the interface: libxdp takes no index.
    pub(crate) interface: &'a str,
    /// Its index.
    pub(crate) ifindex: u32,
    /// Queue of the interface.
    pub(crate) queue: u32,
    /// Whether the driver may, or must, use the frames in place.
    pub(crate) copy: CopyMode,
    /// Frames may have several descriptors.
    pub(crate) multi_buffer: bool,
    /// Entries of the rx and tx rings, a power of two.
    pub(crate) ring_size: u32,
}

impl Binding<'_> {
    /// `sxdp_flags` of `struct sockaddr_xdp`.
    pub(crate) fn flags(&self) -> u16 {
        let multi_buffer = if self.multi_buffer {
            libc::XDP_USE_SG
        } else {
            0
        };
        libc::XDP_USE_NEED_WAKEUP | self.copy.flags() | multi_buffer
    }
}

/// What keeps the socket, the registration of its memory and the mappings of its rings.
#[derive(Debug)]
pub(crate) enum Handle {
    /// Set up by libxdp.
    Libxdp(libxdp::Handle),
    /// Set up by the kernel's own interface.
    Uapi(Box<uapi::Handle>),
}

impl Handle {
    /// Registers the memory through `fd`, which this takes. The rx, tx and completion rings will have `ring_size`
    /// entries, a power of two, and the fill ring twice as many.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn register(fd: OwnedFd, umem: &Umem, ring_size: u32) -> io::Result<Self> {
        if umem.tx_metadata_len() == 0 {
            libxdp::Handle::register(fd, umem, ring_size).map(Self::Libxdp)
        } else {
            // libxdp 1.6 leaves `tx_metadata_len` of `struct xdp_umem_reg` at 0.
            let handle = uapi::Handle::register(fd, umem, ring_size)?;
            Ok(Self::Uapi(Box::new(handle)))
        }
    }

    /// Binds. May be called again after it failed.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn bind(&mut self, binding: &Binding<'_>) -> io::Result<()> {
        match self {
            Self::Libxdp(handle) => handle.bind(binding),
            Self::Uapi(handle) => handle.bind(binding),
        }
    }

    fn layouts(&self) -> io::Result<Layouts> {
        match self {
            Self::Libxdp(handle) => handle.layouts(),
            Self::Uapi(handle) => handle.layouts(),
        }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Libxdp(handle) => handle.as_fd(),
            Self::Uapi(handle) => handle.as_fd(),
        }
    }
}

/// Where the four rings are: in mappings that live as long as the handle that told it, and that nobody
/// else makes rings of.
#[derive(Debug)]
pub(crate) struct Layouts {
    pub(crate) fill: Layout<u64>,
    pub(crate) completion: Layout<u64>,
    pub(crate) rx: Layout<Descriptor>,
    pub(crate) tx: Layout<Descriptor>,
}

/// The rings, and what is on their other side: a bound socket, or a model of it. They are only ever
/// borrowed from here: they end with it.
#[derive(Debug)]
pub(crate) struct Rings<K = Handle> {
    /// To the kernel: frames to receive into.
    pub(crate) fill: Producer<u64>,
    /// From the kernel: frames that were sent.
    pub(crate) completion: Consumer<u64>,
    /// From the kernel: frames that were received.
    pub(crate) rx: Consumer<Descriptor>,
    /// To the kernel: frames to send.
    pub(crate) tx: Producer<Descriptor>,
    /// The kernel.
    pub(crate) kernel: K,
}

impl Rings {
    /// Takes the rings of a bound handle.
    ///
    /// # Errors
    /// When the handle was not bound.
    pub(crate) fn new(handle: Handle) -> io::Result<Self> {
        let layouts = handle.layouts()?;
        // SAFETY: mapped, of a size that is a power of two; the mapping is undone by `handle`, which ends
        // with the rings. The handle is consumed, so this is the only producer. The same holds for the
        // other three.
        let fill = unsafe { Producer::new(layouts.fill) };
        // SAFETY: as above.
        let completion = unsafe { Consumer::new(layouts.completion) };
        // SAFETY: as above.
        let rx = unsafe { Consumer::new(layouts.rx) };
        // SAFETY: as above.
        let tx = unsafe { Producer::new(layouts.tx) };
        Ok(Self {
            fill,
            completion,
            rx,
            tx,
            kernel: handle,
        })
    }
}
