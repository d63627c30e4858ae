#![expect(
    unsafe_code,
    reason = "maps the rings, which are shared with the kernel"
)]
//! Sets a socket up by the kernel's own interface (linux/if_xdp.h; Documentation/networking/af_xdp.rst), for
//! memory with room for TX metadata, which libxdp 1.6 can't register.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
};

use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags},
    net::{
        sockopt,
        xdp::{
            SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
            XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpMmapOffsets,
            XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
        },
    },
};

use crate::{
    handle::{Binding, Layouts},
    ring::{Descriptor, Layout},
    tx_metadata,
    umem::{CHUNK_SIZE, Umem},
};

/// A ring's memory.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    length: usize,
    /// Where in it the ring's parts are.
    offsets: XdpRingOffset,
    /// Entries of the ring.
    size: u32,
}

// SAFETY: owned by this value alone, and not tied to the thread that mapped it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the ring of `size` entries of type `T` that the socket has at `place` (`XDP_PGOFF_*`).
    fn new<T>(
        socket: BorrowedFd<'_>,
        place: u64,
        offsets: XdpRingOffset,
        size: u32,
    ) -> io::Result<Self> {
        let length = offset(offsets.desc)? + size as usize * size_of::<T>();
        // SAFETY: the kernel chooses the address, so no existing mapping is touched.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                socket,
                place,
            )
        }?;
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            length,
            offsets,
            size,
        })
    }

    fn layout<T>(&self) -> io::Result<Layout<T>> {
        // From Linux 5.4 on, which knew no TX metadata.
        let flags = self.offsets.flags.ok_or_else(outside)?;
        Ok(Layout {
            producer: self.at(self.offsets.producer, size_of::<u32>())?.cast(),
            consumer: self.at(self.offsets.consumer, size_of::<u32>())?.cast(),
            flags: self.at(flags, size_of::<u32>())?.cast(),
            entries: self
                .at(self.offsets.desc, self.size as usize * size_of::<T>())?
                .cast(),
            size: self.size,
        })
    }

    /// The place of `length` bytes.
    fn at(&self, start: u64, length: usize) -> io::Result<NonNull<u8>> {
        let start = offset(start)?;
        if start
            .checked_add(length)
            .is_none_or(|end| end > self.length)
        {
            return Err(outside());
        }
        // SAFETY: inside the mapping, as was just checked.
        Ok(unsafe { self.base.add(start) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `new`. The rings in it are gone, or were never made: see `Rings`.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
        if let Err(error) = result {
            tracing::warn!("a ring stays mapped until the process ends: {error}");
        }
    }
}

/// A socket with registered memory and mapped rings.
#[derive(Debug)]
pub(crate) struct Handle {
    fill: Mapping,
    completion: Mapping,
    rx: Mapping,
    tx: Mapping,
    /// After the rings.
    socket: OwnedFd,
}

impl Handle {
    /// Registers the memory, with its room for TX metadata, and maps the rings: `ring_size` entries each, a
    /// power of two, the fill ring twice as many.
    ///
    /// # Errors
    /// The system's: `EINVAL` of a kernel that has no TX metadata.
    pub(crate) fn register(socket: OwnedFd, umem: &Umem, ring_size: u32) -> io::Result<Self> {
        register_memory(socket.as_fd(), umem)?;
        let fill_size = ring_size * 2;
        sockopt::set_xdp_umem_fill_ring_size(&socket, fill_size)?;
        sockopt::set_xdp_umem_completion_ring_size(&socket, ring_size)?;
        sockopt::set_xdp_rx_ring_size(&socket, ring_size)?;
        sockopt::set_xdp_tx_ring_size(&socket, ring_size)?;
        let XdpMmapOffsets { rx, tx, fr, cr } = sockopt::xdp_mmap_offsets(&socket)?;
        let fd = socket.as_fd();
        let fill = Mapping::new::<u64>(fd, XDP_UMEM_PGOFF_FILL_RING, fr, fill_size)?;
        let completion = Mapping::new::<u64>(fd, XDP_UMEM_PGOFF_COMPLETION_RING, cr, ring_size)?;
        let rx = Mapping::new::<Descriptor>(fd, XDP_PGOFF_RX_RING, rx, ring_size)?;
        let tx = Mapping::new::<Descriptor>(fd, XDP_PGOFF_TX_RING, tx, ring_size)?;
        Ok(Self {
            fill,
            completion,
            rx,
            tx,
            socket,
        })
    }

    /// Binds. May be called again after it failed.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn bind(&mut self, binding: &Binding<'_>) -> io::Result<()> {
        let flags = SocketAddrXdpFlags::from_bits_retain(binding.flags());
        let address = SocketAddrXdp::new(flags, binding.ifindex, binding.queue);
        Ok(rustix::net::bind(&self.socket, &address)?)
    }

    /// Where the rings are.
    ///
    /// # Errors
    /// The kernel's offsets are impossible.
    pub(crate) fn layouts(&self) -> io::Result<Layouts> {
        Ok(Layouts {
            fill: self.fill.layout()?,
            completion: self.completion.layout()?,
            rx: self.rx.layout()?,
            tx: self.tx.layout()?,
        })
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// XDP_UMEM_REG. The flag that makes the kernel look at the length came with Linux 6.11; before, from 6.8 on, it
/// looked without being told to (Documentation/networking/xsk-tx-metadata.rst).
fn register_memory(socket: BorrowedFd<'_>, umem: &Umem) -> io::Result<()> {
    let mut memory = XdpUmemReg {
        addr: umem.base().as_ptr().expose_provenance() as u64,
        len: umem.length() as u64,
        chunk_size: CHUNK_SIZE,
        headroom: 0,
        flags: XdpUmemRegFlags::from_bits_retain(libc::XDP_UMEM_TX_METADATA_LEN),
        tx_metadata_len: umem.tx_metadata_len(),
    };
    match sockopt::set_xdp_umem_reg(socket, memory) {
        Err(Errno::INVAL) if tx_metadata::is_without_flag() => {
            memory.flags = XdpUmemRegFlags::empty();
            Ok(sockopt::set_xdp_umem_reg(socket, memory)?)
        }
        result => Ok(result?),
    }
}

fn offset(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| outside())
}

fn outside() -> io::Error {
    io::Error::other("the kernel's offsets of a ring are impossible")
}
