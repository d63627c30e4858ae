//! By the rings of AF_PACKET, versions 2 and 3 (Documentation/networking/packet_mmap.rst; the layouts are those of
//! linux/if_packet.h). Receiving, V2 has a status for each frame, V3 for each block of frames; sending is the same.

use std::{io, mem::offset_of};

use libc::{TP_STATUS_KERNEL, TP_STATUS_SEND_REQUEST, TP_STATUS_USER, tpacket2_hdr, tpacket3_hdr};
use net_afxdp::Interface;
use rustix::{io::Errno, net::SendFlags};

use super::{End, packet_ring::RingMemory, packet_socket::PacketSocket};
use crate::{case::Work, error::BenchError};

/// Bytes of a slot: header and frame.
const SLOT: usize = 2048;
/// Slots of each ring.
const SLOTS: usize = 4096;
/// Bytes of a block; the kernel allocates them as one piece.
const BLOCK: usize = 1 << 17;
/// Milliseconds after which the kernel hands over a V3 block that is not full.
const RETIRE: u32 = 1;

/// What both versions have: a socket, its two rings (receive, then send), and where we are in the second.
#[derive(Debug)]
struct Rings {
    socket: PacketSocket,
    memory: RingMemory,
    /// Bytes before the send ring.
    receive: usize,
    next: usize,
    /// Frames that were written and not flushed.
    staged: usize,
    layout: SendLayout,
}

/// Offsets in a slot of the send ring.
#[derive(Debug, Clone, Copy)]
struct SendLayout {
    status: usize,
    length: usize,
    /// The header's size, aligned: where the kernel looks for the frame.
    data: usize,
}

impl Rings {
    fn open(
        ifname: &str,
        work: Work,
        version: libc::tpacket_versions,
        layout: SendLayout,
    ) -> Result<Self, BenchError> {
        let interface = Interface::by_name(ifname)
            .map_err(|error| io::Error::other(error.to_string()))
            .map_err(BenchError::system(format!("looking for {ifname}")))?;
        Self::set_up(interface.index(), work, version, layout)
            .map_err(BenchError::system(format!("AF_PACKET rings on {ifname}")))
    }

    fn set_up(
        ifindex: u32,
        work: Work,
        version: libc::tpacket_versions,
        layout: SendLayout,
    ) -> io::Result<Self> {
        let socket = PacketSocket::new()?;
        socket.set_number(libc::PACKET_VERSION, version as libc::c_int)?;
        // As AF_XDP in copy mode: past the queueing discipline; and what is sent is not received again.
        socket.set_number(libc::PACKET_QDISC_BYPASS, 1)?;
        socket.set_number(libc::PACKET_IGNORE_OUTGOING, 1)?;
        let mut request = libc::tpacket_req3 {
            tp_block_size: size(BLOCK),
            tp_block_nr: size(SLOT * SLOTS / BLOCK),
            tp_frame_size: size(SLOT),
            tp_frame_nr: size(SLOTS),
            tp_retire_blk_tov: RETIRE,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        socket.set_ring(libc::PACKET_RX_RING, version, &request)?;
        // Not for send rings.
        request.tp_retire_blk_tov = 0;
        socket.set_ring(libc::PACKET_TX_RING, version, &request)?;
        let memory = RingMemory::map(&socket, 2 * SLOT * SLOTS)?;
        socket.bind(ifindex, work != Work::TxPush)?;
        Ok(Self {
            socket,
            memory,
            receive: SLOT * SLOTS,
            next: 0,
            staged: 0,
            layout,
        })
    }

    fn slot(&self, ahead: usize) -> usize {
        self.receive + (self.next + ahead) % SLOTS * SLOT
    }

    fn room(&self) -> usize {
        // The kernel completes in order, so the last of a burst being free means that all are.
        let last = super::BURST - 1;
        let free = |ahead| self.memory.status(self.slot(ahead) + self.layout.status) == 0;
        if free(last) {
            return super::BURST;
        }
        (0..last).take_while(|&ahead| free(ahead)).count()
    }

    fn send(&mut self, length: usize, mut fill: impl FnMut(&mut [u8])) {
        let (slot, layout) = (self.slot(0), self.layout);
        fill(self.memory.bytes_mut(slot + layout.data, length));
        self.memory.set_field(slot + layout.length, size(length));
        self.memory
            .set_status(slot + layout.status, TP_STATUS_SEND_REQUEST);
        self.next = (self.next + 1) % SLOTS;
        self.staged += 1;
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.staged == 0 {
            return Ok(());
        }
        self.staged = 0;
        match rustix::net::send(&self.socket, &[], SendFlags::DONTWAIT) {
            // What the kernel could not send now stays in the ring, or is lost: the far end counts.
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What differs between the versions: how frames are received.
trait Receive {
    /// Shows up to `budget` received frames; returns how many.
    fn receive(&mut self, memory: &RingMemory, budget: usize, take: impl FnMut(&[u8])) -> usize;
}

/// A packet socket with its rings.
#[derive(Debug)]
pub(super) struct Packet<R> {
    rings: Rings,
    receive: R,
}

impl<R: Receive> End for Packet<R> {
    fn room(&mut self) -> usize {
        self.rings.room()
    }

    fn send(&mut self, length: usize, fill: impl FnMut(&mut [u8])) {
        self.rings.send(length, fill);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.rings.flush()
    }

    fn receive(&mut self, budget: usize, take: impl FnMut(&[u8])) -> usize {
        self.receive.receive(&self.rings.memory, budget, take)
    }
}

/// TPACKET_V2: the slot that is looked at.
#[derive(Debug, Default)]
pub(super) struct V2(usize);

impl V2 {
    pub(super) fn open(ifname: &str, work: Work) -> Result<Packet<Self>, BenchError> {
        let layout = SendLayout {
            status: offset_of!(tpacket2_hdr, tp_status),
            length: offset_of!(tpacket2_hdr, tp_len),
            data: size_of::<tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT),
        };
        let rings = Rings::open(ifname, work, libc::tpacket_versions::TPACKET_V2, layout)?;
        let receive = Self::default();
        Ok(Packet { rings, receive })
    }
}

impl Receive for V2 {
    fn receive(
        &mut self,
        memory: &RingMemory,
        budget: usize,
        mut take: impl FnMut(&[u8]),
    ) -> usize {
        let mut count = 0;
        while count < budget {
            let slot = self.0 * SLOT;
            let status = slot + offset_of!(tpacket2_hdr, tp_status);
            if memory.status(status) & TP_STATUS_USER == 0 {
                break;
            }
            let length = memory.field(slot + offset_of!(tpacket2_hdr, tp_snaplen)) as usize;
            // `tp_mac` and `tp_net` share a word.
            let start = memory.field(slot + offset_of!(tpacket2_hdr, tp_mac)) & 0xffff;
            take(memory.bytes(slot + start as usize, length.min(SLOT)));
            memory.set_status(status, TP_STATUS_KERNEL);
            self.0 = (self.0 + 1) % SLOTS;
            count += 1;
        }
        count
    }
}

/// TPACKET_V3.
#[derive(Debug, Default)]
pub(super) struct V3 {
    /// The block that is looked at.
    block: usize,
    /// Frames of it that are left, and the offset of the next one, if the block is ours.
    left: u32,
    frame: usize,
}

/// Offsets in a block's header (`tpacket_block_desc`, then `tpacket_hdr_v1`).
const BLOCK_STATUS: usize = 8;
const BLOCK_FRAMES: usize = 12;
const BLOCK_FIRST: usize = 16;

impl V3 {
    pub(super) fn open(ifname: &str, work: Work) -> Result<Packet<Self>, BenchError> {
        let layout = SendLayout {
            status: offset_of!(tpacket3_hdr, tp_status),
            length: offset_of!(tpacket3_hdr, tp_len),
            data: size_of::<tpacket3_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT),
        };
        let rings = Rings::open(ifname, work, libc::tpacket_versions::TPACKET_V3, layout)?;
        let receive = Self::default();
        Ok(Packet { rings, receive })
    }

    /// Whether there is a frame to look at; takes the next block if needed.
    fn has_frame(&mut self, memory: &RingMemory) -> bool {
        if self.left > 0 {
            return true;
        }
        let start = self.block * BLOCK;
        if memory.status(start + BLOCK_STATUS) & TP_STATUS_USER == 0 {
            return false;
        }
        self.left = memory.field(start + BLOCK_FRAMES);
        self.frame = start + memory.field(start + BLOCK_FIRST) as usize;
        if self.left == 0 {
            self.hand_back(memory);
        }
        self.left > 0
    }

    fn hand_back(&mut self, memory: &RingMemory) {
        memory.set_status(self.block * BLOCK + BLOCK_STATUS, TP_STATUS_KERNEL);
        self.block = (self.block + 1) % (SLOT * SLOTS / BLOCK);
    }
}

impl Receive for V3 {
    fn receive(
        &mut self,
        memory: &RingMemory,
        budget: usize,
        mut take: impl FnMut(&[u8]),
    ) -> usize {
        let mut count = 0;
        while count < budget && self.has_frame(memory) {
            let frame = self.frame;
            let length = memory.field(frame + offset_of!(tpacket3_hdr, tp_snaplen)) as usize;
            let start = memory.field(frame + offset_of!(tpacket3_hdr, tp_mac)) & 0xffff;
            take(memory.bytes(frame + start as usize, length.min(BLOCK)));
            let next = memory.field(frame + offset_of!(tpacket3_hdr, tp_next_offset));
            self.frame += next as usize;
            self.left -= 1;
            count += 1;
            if self.left == 0 {
                self.hand_back(memory);
            }
        }
        count
    }
}

fn size(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
