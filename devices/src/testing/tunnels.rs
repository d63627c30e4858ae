//! Frames in tunnels for tests, built without any code of the devices.

use super::frames::{FrameSpec, ones_sum, pseudo_header};

/// What is between the outer IP header and the inner frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// UDP to this port, and a VXLAN header. `checksum`: UDP has one.
    #[expect(missing_docs, reason = "said above")]
    Vxlan { port: u16, checksum: bool },
    /// UDP, and a geneve header with so many words of options.
    #[expect(missing_docs, reason = "said above")]
    Geneve { options: u8, checksum: bool },
    /// GRE with these fields, around a frame or a packet.
    #[expect(missing_docs, reason = "said above")]
    Gre {
        checksum: bool,
        key: bool,
        sequence: bool,
        ethernet: bool,
    },
    /// Nothing: the inner IP header follows.
    Ip,
}

/// A tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The outer IP header is one of IPv6.
    pub v6: bool,
    /// VLAN tags around it all.
    pub tags: Vec<(u16, u16)>,
    /// What carries the inner frame.
    pub carrier: Carrier,
}

impl Tunnel {
    /// Each of them over both versions of IP.
    pub fn all() -> Vec<Self> {
        let mut carriers = vec![Carrier::Ip];
        for checksum in [false, true] {
            for port in [4789, 8472] {
                carriers.push(Carrier::Vxlan { port, checksum });
            }
            for options in [0, 1, 5] {
                carriers.push(Carrier::Geneve { options, checksum });
            }
            for (key, sequence) in [(false, false), (true, false), (true, true)] {
                for ethernet in [false, true] {
                    carriers.push(Carrier::Gre {
                        checksum,
                        key,
                        sequence,
                        ethernet,
                    });
                }
            }
        }
        let both = [false, true].into_iter();
        both.flat_map(|v6| {
            carriers.iter().map(move |&carrier| Self {
                v6,
                tags: Vec::new(),
                carrier,
            })
        })
        .collect()
    }

    /// Whether it carries frames, not packets.
    pub fn carries_ethernet(&self) -> bool {
        !matches!(
            self.carrier,
            Carrier::Ip
                | Carrier::Gre {
                    ethernet: false,
                    ..
                }
        )
    }

    /// Where the outer header behind IP begins.
    fn transport_start(&self) -> usize {
        14 + 4 * self.tags.len() + if self.v6 { 40 } else { 20 }
    }

    /// Where the checksum of the tunnel's header is, if it has one.
    pub fn checksum_at(&self) -> Option<usize> {
        let start = self.transport_start();
        match self.carrier {
            Carrier::Vxlan { checksum, .. } | Carrier::Geneve { checksum, .. } => {
                checksum.then_some(start + 6)
            }
            Carrier::Gre { checksum, .. } => checksum.then_some(start + 4),
            Carrier::Ip => None,
        }
    }

    /// What is in the place of UDP's checksum while it is undone: where, and the sum over the pseudo-header.
    pub fn partial(&self, frame: &[u8]) -> Option<(usize, u16)> {
        let at = self.checksum_at()?;
        if matches!(self.carrier, Carrier::Gre { .. }) {
            return Some((at, 0));
        }
        let start = self.transport_start();
        let network = start - if self.v6 { 40 } else { 20 };
        Some((at, ones_sum(&pseudo_header(frame, network, start))))
    }

    /// The inner frame in the tunnel, with right checksums around it as it is. `inner` says what it is.
    pub fn carry(&self, frame: &[u8], inner: &FrameSpec) -> Vec<u8> {
        let skipped = if self.carries_ethernet() {
            0
        } else {
            inner.network_start()
        };
        let (protocol, mut payload) = self.header(inner.v6);
        payload.extend(&frame[skipped..]);
        let mut outer = FrameSpec::udp(self.v6, payload.split_off(8));
        outer.tags.clone_from(&self.tags);
        outer.ports = [50_000, u16::from_be_bytes([payload[2], payload[3]])];
        let mut bytes = outer.build();
        let start = self.transport_start();
        if protocol == 17 {
            if self.checksum_at().is_none() {
                bytes[start + 6..start + 8].fill(0);
            }
            return bytes;
        }
        // Eight bytes of another header than UDP's, or of the packet itself.
        bytes[start..start + 8].copy_from_slice(&payload);
        let network = start - if self.v6 { 40 } else { 20 };
        if self.v6 {
            bytes[network + 6] = protocol;
        } else {
            bytes[network + 9] = protocol;
            bytes[network + 10..network + 12].fill(0);
            let sum = !ones_sum(&bytes[network..start]);
            bytes[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        }
        if let Some(at) = self.checksum_at() {
            let sum = !ones_sum(&bytes[start..]);
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// What Linux sends of `partial`: the checksum of the tunnel's header is the one for `whole`.
    pub fn with_inner(&self, whole: &[u8], partial: &[u8], inner: &FrameSpec) -> Vec<u8> {
        let mut bytes = self.carry(whole, inner);
        let field = inner.transport_start() + inner.checksum_offset();
        let at = bytes.len() - (whole.len() - field);
        bytes[at..at + 2].copy_from_slice(&partial[field..field + 2]);
        bytes
    }

    /// The protocol of IP, and what is between IP and the inner frame.
    fn header(&self, inner_v6: bool) -> (u8, Vec<u8>) {
        let ip = if inner_v6 { 0x86ddu16 } else { 0x0800 };
        match self.carrier {
            Carrier::Vxlan { port, .. } => {
                let [high, low] = port.to_be_bytes();
                let udp = [0, 0, high, low, 0, 0, 0, 0];
                (17, [udp, [0x08, 0, 0, 0, 0, 0, 42, 0]].concat())
            }
            Carrier::Geneve { options, .. } => {
                let [high, low] = 6081u16.to_be_bytes();
                let udp = [0, 0, high, low, 0, 0, 0, 0];
                let own = [options, 0, 0x65, 0x58, 0, 0, 42, 0];
                let rest = vec![0x11; usize::from(options) * 4];
                (17, [&udp[..], &own, &rest].concat())
            }
            Carrier::Gre {
                checksum,
                key,
                sequence,
                ethernet,
            } => {
                let mut flags = 0;
                let mut fields = Vec::new();
                for (is_there, bit, value) in
                    [(checksum, 0x80, 0u32), (key, 0x20, 42), (sequence, 0x10, 7)]
                {
                    if is_there {
                        flags |= bit;
                        fields.extend(value.to_be_bytes());
                    }
                }
                let [high, low] = if ethernet { 0x6558 } else { ip }.to_be_bytes();
                (47, [&[flags, 0, high, low], &fields[..]].concat())
            }
            Carrier::Ip => (if inner_v6 { 41 } else { 4 }, Vec::new()),
        }
    }
}
