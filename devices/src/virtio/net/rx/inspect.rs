//! What a frame of the wire is, as far as the guest's offloads ask for it.

use super::{
    super::{
        offload::{
            coalesce::Coalesced,
            dhcp,
            hidden::{Hidden, Patch},
            packet::{Packet, Transport},
            segment::Request,
            verify::{self, Verdict},
        },
        offloads::ReceiveOffloads,
        wire::RxHeader,
    },
    uncut::Uncut,
};

/// A frame of the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) fragments: &'a [&'a [u8]],
    /// Bytes of all of them.
    pub(super) len: usize,
    /// What it carries, if the first fragment has all headers of that.
    packet: Option<Packet>,
    /// Only if there is a packet.
    verdict: Verdict,
    padded: bool,
    /// Its checksum is completed here if it is partial, whatever the guest takes.
    is_dhcp: bool,
    /// What is to be completed deeper in it.
    hidden: Option<Hidden>,
    /// Only of a frame that is longer than the wire takes.
    uncut: Option<Uncut>,
}

impl<'a> Frame<'a> {
    /// Looks at a frame of a wire of this MTU. Its payload is read only if the guest takes the trouble off itself.
    pub(super) fn new(fragments: &'a [&'a [u8]], offloads: ReceiveOffloads, mtu: usize) -> Self {
        let start = fragments.first().copied().unwrap_or_default();
        let len = fragments.iter().map(|fragment| fragment.len()).sum();
        let parsed = Packet::parse(start);
        let packet = parsed.ok();
        let verdict = packet.map_or(Verdict::Unknown, |packet| {
            verify::judge(fragments, &packet, offloads.partial)
        });
        let hidden = match verdict {
            Verdict::Right => None,
            _ => Hidden::find(fragments, &parsed),
        };
        let is_dhcp = verdict == Verdict::Partial
            && packet.is_some_and(|packet| dhcp::is_for_client(start, &packet));
        let padded = packet.is_some_and(|packet| packet.end != len);
        let long = packet.filter(|packet| packet.end - packet.network_start > mtu);
        Self {
            fragments,
            len,
            packet,
            verdict,
            padded,
            is_dhcp,
            hidden,
            // In a tunnel, it is a datagram as long as it is.
            uncut: long
                .filter(|_| verdict == Verdict::Partial && hidden.is_none())
                .map(|packet| how_to_cut(&packet, mtu, padded)),
        }
    }

    /// How the frame is to be cut, if it is one of many segments.
    pub(super) fn uncut(&self) -> Option<Uncut> {
        self.uncut
    }

    /// How many segments it is.
    pub(super) fn segments(&self) -> usize {
        match (self.uncut, &self.packet) {
            (Some(Uncut::Segments(request)), Some(packet)) => {
                let payload = self.len - packet.payload_start;
                payload.div_ceil(request.size.into())
            }
            _ => 1,
        }
    }

    /// Whether the guest takes it as it is, or would if it is one of many segments.
    pub(super) fn is_allowed(&self, offloads: ReceiveOffloads) -> bool {
        let packet = self.packet.as_ref();
        packet.is_some_and(|packet| offloads.coalesce.allows(self.start(), packet))
    }

    /// The bytes from `start` to `end`, in pieces.
    pub(super) fn range(&self, start: usize, end: usize) -> impl Iterator<Item = &'a [u8]> {
        let mut offset = 0;
        let pieces = self.fragments.iter().map(move |fragment| {
            let from = start.saturating_sub(offset).min(fragment.len());
            let to = end.saturating_sub(offset).clamp(from, fragment.len());
            offset += fragment.len();
            fragment.get(from..to).unwrap_or_default()
        });
        pieces.filter(|piece| !piece.is_empty())
    }

    /// The first bytes, with all of the headers of [`packet`](Self::trusted).
    pub(super) fn start(&self) -> &'a [u8] {
        self.fragments.first().copied().unwrap_or_default()
    }

    /// The packet, if its checksum is right or was never on a wire, and it is one segment: fit to be part of a
    /// larger one.
    pub(super) fn trusted(&self) -> Option<&Packet> {
        let alone = self.uncut.is_some() || self.is_dhcp || self.hidden.is_some();
        let packet = self.packet.as_ref().filter(|_| !alone);
        packet.filter(|_| matches!(self.verdict, Verdict::Right | Verdict::Partial))
    }

    /// What the guest is told, and what is to be written where, lower offsets first, if a checksum is left to us.
    pub(super) fn header(&self, offloads: ReceiveOffloads) -> (RxHeader, [Option<Patch>; 2]) {
        if let Some(hidden) = &self.hidden {
            return (RxHeader::default(), hidden.complete(self.fragments));
        }
        if let (Some(Uncut::Segments(request)), Some(packet)) = (self.uncut, &self.packet) {
            let whole = Coalesced::uncut(self.start(), packet, request.size.into());
            return (RxHeader::coalesced(&whole), [None; 2]);
        }
        // Padding would be summed up as well by the guest.
        let is_ours = self.padded || self.is_dhcp;
        match (self.verdict, &self.packet) {
            (Verdict::Right, _) if offloads.partial => (RxHeader::VALID, [None; 2]),
            (Verdict::Partial, Some(packet)) if offloads.partial && !is_ours => {
                let header = RxHeader::partial(packet.transport_start, packet.checksum_offset());
                (header, [None; 2])
            }
            (Verdict::Partial, Some(packet)) => {
                let checksum = verify::complete(self.fragments, packet);
                let patch = (packet.checksum_start(), checksum);
                (RxHeader::default(), [Some(patch), None])
            }
            _ => (RxHeader::default(), [None; 2]),
        }
    }
}

/// How a packet that is longer than this MTU is to be cut.
fn how_to_cut(packet: &Packet, mtu: usize, padded: bool) -> Uncut {
    let headers = packet.payload_start - packet.network_start;
    let size = mtu.checked_sub(headers).map(u16::try_from);
    match (packet.transport, size) {
        (Transport::Tcp, Some(Ok(size))) if size > 0 && !padded => Uncut::Segments(Request {
            kind: packet.kind(),
            size,
            checksum_start: packet.transport_start,
            checksum_offset: packet.checksum_offset(),
        }),
        _ => Uncut::Unknown,
    }
}
