//! AF_XDP as the back end of a queue pair: an adapter, as net-afxdp's queue has the same shape.

use std::{
    io,
    ops::ControlFlow,
    os::fd::{AsFd, BorrowedFd},
};

use net_afxdp::{FileRange, Queue, SharedMemory, Statistics};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::backend::{
    BackendReport, ChecksumRequest, FrameAccount, Losses, NetBackend, Piece, SendError,
};
use crate::GuestRam;

/// Guest RAM for queues that send from it in place ([`Port::open_sharing`](net_afxdp::Port::open_sharing)).
///
/// # Errors
/// It is not in files, or no file descriptor is left.
pub fn shared_memory(ram: &GuestRam) -> io::Result<SharedMemory> {
    let range = |region: &vm_memory::GuestRegionMmap<()>| {
        let place = region.file_offset().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "guest memory is not in a file")
        })?;
        Ok(FileRange {
            file: place.file().try_clone()?.into(),
            offset: place.start(),
            length: region.len(),
        })
    };
    let ranges: io::Result<_> = ram.iter().map(range).collect();
    SharedMemory::new(ranges?)
}

/// One queue of a host interface.
#[derive(Debug)]
pub struct AfXdpBackend(pub Queue);

impl NetBackend for AfXdpBackend {
    fn max_frame(&self) -> usize {
        self.0.max_frame()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn receive(&mut self, budget: usize, take: impl FnMut(&[&[u8]]) -> ControlFlow<()>) -> usize {
        self.0.receive(budget, take)
    }

    fn discard(&mut self) -> usize {
        self.0.discard()
    }

    fn room(&mut self) -> usize {
        self.0.room()
    }

    fn send(&mut self, len: usize, fill: impl FnMut(&mut [u8])) -> Result<(), SendError> {
        self.0.send(len, fill).map_err(send_error)
    }

    fn completes_checksums(&self) -> bool {
        self.0.completes_checksums()
    }

    fn send_with_checksum(
        &mut self,
        len: usize,
        checksum: ChecksumRequest,
        fill: impl FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        let sent = self.0.send_with_checksum(len, checksum, fill);
        sent.map_err(send_error)
    }

    fn sends_in_place(&self) -> bool {
        self.0.sends_in_place()
    }

    fn send_in_place(&mut self, pieces: &[Piece], token: u16) -> Result<(), SendError> {
        let sent = self.0.send_in_place(pieces, token.into());
        sent.map_err(send_error)
    }

    fn take_sent(&mut self, mut done: impl FnMut(u16)) -> usize {
        // It was made of a u16.
        let done = |token| done(u16::try_from(token).unwrap_or_default());
        self.0.take_sent(done)
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    fn withdraw(&mut self) -> usize {
        self.0.withdraw()
    }

    fn forget_in_flight(&mut self) -> usize {
        self.0.forget_in_flight()
    }

    fn flush(&mut self) -> io::Result<()> {
        let stalls = self.0.counters().tx_stalls;
        self.0.flush()?;
        // The kernel left frames in the ring: somebody has to flush again, even if the guest has
        // nothing more to send.
        if self.0.counters().tx_stalls == stalls {
            Ok(())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    /// XDP_STATISTICS of another descriptor of the socket.
    fn losses(&self) -> Option<Losses> {
        let socket = self.0.as_fd().try_clone_to_owned().ok()?;
        Some(Box::new(move || {
            // An interface that is gone has lost what it will.
            let kernel = Statistics::of(&socket).unwrap_or_default();
            kernel.rx_dropped.wrapping_add(kernel.rx_ring_full)
        }))
    }

    fn report(&mut self) -> BackendReport {
        BackendReport {
            frames: Some(frames(self.0.accounting())),
            counters: counters(&self.0),
        }
    }
}

fn send_error(error: net_afxdp::SendError) -> SendError {
    match error {
        net_afxdp::SendError::TooLong => SendError::TooLong,
        net_afxdp::SendError::TooShort => SendError::TooShort,
        net_afxdp::SendError::Full => SendError::Full,
        net_afxdp::SendError::NotInPlace => SendError::NotInPlace,
        net_afxdp::SendError::NoChecksum => SendError::NoChecksum,
    }
}

fn frames(account: net_afxdp::FrameAccounting) -> FrameAccount {
    let sum = |places: &[u32]| places.iter().copied().map(u64::from).sum::<u64>();
    // Pieces of guest memory are none of its frames.
    let in_place = u64::from(account.in_place);
    FrameAccount {
        free: account.free.into(),
        fill: sum(&[account.fill, account.receiving]),
        rx: account.rx.into(),
        tx: sum(&[account.tx, account.transmitting, account.completion]).saturating_sub(in_place),
        total: account.total.into(),
    }
}

fn counters(queue: &Queue) -> Vec<(&'static str, u64)> {
    let own = queue.counters();
    let mut named = vec![
        ("rx_packets", own.rx_packets),
        ("rx_bytes", own.rx_bytes),
        ("rx_discarded", own.rx_discarded),
        ("rx_wakeups", own.rx_wakeups),
        ("tx_packets", own.tx_packets),
        ("tx_bytes", own.tx_bytes),
        ("tx_in_place", own.tx_in_place),
        ("tx_lost", own.tx_lost),
        ("tx_wakeups", own.tx_wakeups),
        ("tx_stalls", own.tx_stalls),
        ("invalid_descriptors", own.invalid_descriptors),
    ];
    // A socket whose interface is gone has no statistics; the rest is still worth having.
    if let Ok(kernel) = queue.statistics() {
        named.extend([
            ("xdp_rx_dropped", kernel.rx_dropped),
            ("xdp_rx_invalid_descs", kernel.rx_invalid_descs),
            ("xdp_rx_ring_full", kernel.rx_ring_full),
            ("xdp_rx_fill_ring_empty", kernel.rx_fill_ring_empty_descs),
            ("xdp_tx_invalid_descs", kernel.tx_invalid_descs),
            ("xdp_tx_ring_empty", kernel.tx_ring_empty_descs),
        ]);
    }
    named
}
