//! What a frame of the wire is, as far as the guest's offloads ask for it.

use super::super::{
    offload::{
        packet::Packet,
        verify::{self, Verdict},
    },
    offloads::ReceiveOffloads,
    wire::RxHeader,
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
}

impl<'a> Frame<'a> {
    /// Looks at a frame. Its payload is read only if the guest takes the trouble off itself.
    pub(super) fn new(fragments: &'a [&'a [u8]], offloads: ReceiveOffloads) -> Self {
        let start = fragments.first().copied().unwrap_or_default();
        let len = fragments.iter().map(|fragment| fragment.len()).sum();
        let packet = Packet::parse(start).ok();
        let verdict = packet.map_or(Verdict::Unknown, |packet| {
            verify::judge(fragments, &packet, offloads.partial)
        });
        Self {
            fragments,
            len,
            packet,
            verdict,
            padded: packet.is_some_and(|packet| packet.end != len),
        }
    }

    /// The first bytes, with all of the headers of [`packet`](Self::trusted).
    pub(super) fn start(&self) -> &'a [u8] {
        self.fragments.first().copied().unwrap_or_default()
    }

    /// The packet, if its checksum is right or was never on a wire: fit to be part of a larger one.
    pub(super) fn trusted(&self) -> Option<&Packet> {
        let packet = self.packet.as_ref();
        packet.filter(|_| matches!(self.verdict, Verdict::Right | Verdict::Partial))
    }

    /// What the guest is told, and where which checksum is to be written if that is left to us.
    pub(super) fn header(&self, offloads: ReceiveOffloads) -> (RxHeader, Option<(usize, u16)>) {
        match (self.verdict, &self.packet) {
            (Verdict::Right, _) if offloads.partial => (RxHeader::VALID, None),
            (Verdict::Partial, Some(packet)) if offloads.partial && !self.padded => {
                let header = RxHeader::partial(packet.transport_start, packet.checksum_offset());
                (header, None)
            }
            // Padding would be summed up as well by the guest.
            (Verdict::Partial, Some(packet)) => {
                let checksum = verify::complete(self.fragments, packet);
                let patch = (packet.checksum_start(), checksum);
                (RxHeader::default(), Some(patch))
            }
            _ => (RxHeader::default(), None),
        }
    }
}
