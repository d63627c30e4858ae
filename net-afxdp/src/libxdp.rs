#![expect(
    unsafe_code,
    reason = "calls libxdp, which creates the socket and maps the rings"
)]
//! libxdp's part: it registers the frame memory, maps the rings and binds, and undoes all that.
//!
//! It knows the layouts of all kernels. The rings it maps are walked by [`ring`](crate::ring), since
//! it exports its ring helpers as calls, one per packet.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
    ptr::{self, NonNull},
};

use libxdp_sys as xdp;
use rustix::param::page_size;

use crate::{
    handle::{Binding, Layouts},
    ring::Layout,
    umem::{CHUNK_SIZE, Umem},
};

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
pub(crate) struct Handle {
    socket: *mut xdp::xsk_socket,
    umem: *mut xdp::xsk_umem,
    /// From `Box::into_raw`: libxdp keeps pointers into it.
    places: NonNull<Places>,
}

// SAFETY: libxdp's objects are used through this value alone and are not tied to a thread.
unsafe impl Send for Handle {}

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
    /// The completion ring has `ring_size` entries, a power of two, and the fill ring twice as many.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn register(fd: OwnedFd, umem: &Umem, ring_size: u32) -> io::Result<Self> {
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
        // SAFETY: the memory is mapped now, and its pages are pinned by the kernel from now on; places
        // and configuration outlive the call. libxdp closes the fd when it fails, and with the umem.
        let result = unsafe {
            xdp::xsk_umem__create_with_fd(
                &raw mut handle.umem,
                fd.into_raw_fd(),
                umem.base().as_ptr().cast(),
                umem.length() as u64,
                fill,
                completion,
                &raw const config,
            )
        };
        if result == 0 {
            return Ok(handle);
        }
        handle.umem = ptr::null_mut();
        // SAFETY: libxdp wrote there in the call, and has forgotten it.
        unmap_forgotten(unsafe { &(*places.as_ptr()).fill });
        Err(io::Error::from_raw_os_error(-result))
    }

    /// Maps the rx and tx rings and binds. May be called again after it failed.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn bind(&mut self, binding: &Binding<'_>) -> io::Result<()> {
        let name = CString::new(binding.interface)?;
        let config = xdp::xsk_socket_config {
            rx_size: binding.ring_size,
            tx_size: binding.ring_size,
            __bindgen_anon_1: xdp::xsk_socket_config__bindgen_ty_1 {
                libxdp_flags: xdp::XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
            },
            // For the program, which libxdp leaves alone.
            xdp_flags: 0,
            bind_flags: binding.flags(),
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

    /// Where the rings are, once they are all mapped.
    ///
    /// # Errors
    /// The handle was not bound.
    pub(crate) fn layouts(&self) -> io::Result<Layouts> {
        // SAFETY: libxdp wrote it in `register` and `bind`, and reads it again at the end only.
        let places = unsafe { self.places.as_ref() };
        Ok(Layouts {
            fill: producer_layout(&places.fill)?,
            completion: consumer_layout(&places.completion)?,
            rx: consumer_layout(&places.rx)?,
            tx: producer_layout(&places.tx)?,
        })
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

/// Unmaps the fill ring that libxdp 1.6 leaves mapped when it can't map the completion ring (it unmaps
/// the failed mapping instead, `xsk_create_umem_rings`). The mapping would keep the socket and its
/// locked memory for the life of the process.
fn unmap_forgotten(fill: &xdp::xsk_ring_prod) {
    // The producer's index is in the first page of the mapping (`struct xdp_ring`).
    let base = fill.producer.map_addr(|it| it & !(page_size() - 1));
    if base.is_null() {
        return;
    }
    let entries = fill.ring.addr() - base.addr();
    let length = entries + fill.size as usize * size_of::<u64>();
    // SAFETY: libxdp mapped this range and nobody else knows of it. The version of libxdp is pinned.
    let result = unsafe { rustix::mm::munmap(base.cast(), length) };
    if let Err(error) = result {
        tracing::warn!("a fill ring stays mapped until the process ends: {error}");
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
fn producer_layout<T>(ring: &xdp::xsk_ring_prod) -> io::Result<Layout<T>> {
    layout(
        ring.producer,
        ring.consumer,
        ring.flags,
        ring.ring,
        ring.size,
    )
}

fn consumer_layout<T>(ring: &xdp::xsk_ring_cons) -> io::Result<Layout<T>> {
    layout(
        ring.producer,
        ring.consumer,
        ring.flags,
        ring.ring,
        ring.size,
    )
}

fn layout<T>(
    producer: *mut u32,
    consumer: *mut u32,
    flags: *mut u32,
    entries: *mut libc::c_void,
    size: u32,
) -> io::Result<Layout<T>> {
    let unmapped = || io::Error::other("libxdp left a ring unmapped");
    Ok(Layout {
        producer: NonNull::new(producer.cast()).ok_or_else(unmapped)?,
        consumer: NonNull::new(consumer.cast()).ok_or_else(unmapped)?,
        flags: NonNull::new(flags.cast()).ok_or_else(unmapped)?,
        entries: NonNull::new(entries.cast()).ok_or_else(unmapped)?,
        size,
    })
}
