//! Checksums that the guest leaves to the card, and the card to its back end: what goes out is, byte for byte, what
//! the card makes of it without.

use std::{
    io,
    ops::ControlFlow,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use devices::{
    testing::frames::{FrameSpec, ones_sum, pseudo_header},
    virtio::net::{
        NetBackend,
        backend::{ChecksumRequest, SendError},
        loopback::Loopback,
    },
};
use net_afxdp::{AttachMode, PortConfig, TxMetadata};

use crate::{
    afxdp::{open, open_config, veth},
    guest::*,
    offload_guest::*,
    offload_kernel::ethtool,
    random::Numbers,
};

/// What a [`Card`] was asked for.
#[derive(Debug, Default)]
struct Asked {
    /// Checksums that it completed.
    completed: AtomicU64,
    /// Frames that it had no such thing for.
    refused: AtomicU64,
}

/// A back end that completes checksums by itself, of TCP and UDP only, as hardware does.
struct Card {
    inner: Loopback,
    /// Bytes of the pieces that it asks for a frame in.
    fragment: usize,
    /// Refuses each request of that number, counted from 1, and its multiples. 0: none.
    moody: u64,
    asked: Arc<Asked>,
}

impl Card {
    /// Completes it as the frame's headers have it, and not as was asked.
    fn complete(frame: &mut [u8], request: ChecksumRequest) {
        let (start, offset) = (usize::from(request.start), usize::from(request.offset));
        let ether_type = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let network = if ether_type(12) == 0x8100 { 18 } else { 14 };
        let v6 = match ether_type(network - 2) {
            0x0800 => false,
            0x86dd => true,
            other => panic!("{other:#x}"),
        };
        assert_eq!(start, network + if v6 { 40 } else { 20 });
        let protocol = frame[network + if v6 { 6 } else { 9 }];
        let udp = match (protocol, offset) {
            (6, 16) => false,
            (17, 6) => true,
            other => panic!("{other:?}"),
        };
        let pseudo = ones_sum(&pseudo_header(frame, network, start));
        let at = start + offset;
        assert_eq!(frame[at..at + 2], pseudo.to_be_bytes(), "the pseudo-header");
        let sum = match !ones_sum(&frame[start..]) {
            0 if udp => 0xffff,
            sum => sum,
        };
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

impl NetBackend for Card {
    fn max_frame(&self) -> usize {
        self.inner.max_frame()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.event_fd()
    }

    fn receive(&mut self, budget: usize, take: impl FnMut(&[&[u8]]) -> ControlFlow<()>) -> usize {
        self.inner.receive(budget, take)
    }

    fn discard(&mut self) -> usize {
        self.inner.discard()
    }

    fn room(&mut self) -> usize {
        self.inner.room()
    }

    fn send(&mut self, len: usize, fill: impl FnMut(&mut [u8])) -> Result<(), SendError> {
        self.inner.send(len, fill)
    }

    fn completes_checksums(&self) -> bool {
        true
    }

    fn send_with_checksum(
        &mut self,
        len: usize,
        checksum: ChecksumRequest,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        let done = self.asked.completed.load(Ordering::SeqCst);
        let number = done + self.asked.refused.load(Ordering::SeqCst) + 1;
        if number.is_multiple_of(self.moody) {
            self.asked.refused.fetch_add(1, Ordering::SeqCst);
            return Err(SendError::NoChecksum);
        }
        if self.inner.room() == 0 {
            return Err(SendError::Full);
        }
        let mut frame = vec![0; len];
        frame.chunks_mut(self.fragment).for_each(&mut fill);
        Self::complete(&mut frame, checksum);
        self.asked.completed.store(done + 1, Ordering::SeqCst);
        let mut rest = frame.as_slice();
        self.inner.send(len, |piece| {
            let (here, later) = rest.split_at(piece.len());
            piece.copy_from_slice(here);
            rest = later;
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A guest on such a card.
fn guest_on(name: &str, fragment: usize, moody: u64) -> (NetGuest<Loopback>, Arc<Asked>) {
    let (near, wire) = Loopback::pair(MAX_FRAME).unwrap();
    let asked = Arc::new(Asked::default());
    let card = Card {
        inner: near.with_fragments(fragment),
        fragment,
        moody,
        asked: Arc::clone(&asked),
    };
    let mut guest = NetGuest::plug_on(name, card, wire);
    guest.boot();
    (guest, asked)
}

/// Whether a card can be trusted to find the checksum of such a frame.
fn is_plain(spec: &FrameSpec) -> bool {
    spec.tags.len() <= 1 && spec.ip_options.is_empty() && spec.extensions.is_empty()
}

/// All of them, and those whose headers some cards don't find.
fn all_specs(len: usize) -> Vec<FrameSpec> {
    let mut all = specs(len);
    let mut tagged = all[0].clone();
    tagged.tags = vec![(0x8100, 3)];
    let mut options = all[2].clone();
    options.ip_options = vec![1; 8];
    let mut extended = all[1].clone();
    extended.extensions = vec![(60, vec![1, 4, 0, 0, 0, 0])];
    all.extend([tagged, options, extended]);
    all
}

#[test]
fn what_the_card_completes_is_what_we_would_have_sent() {
    for fragment in [MAX_FRAME, 64, 33] {
        let (mut guest, asked) = guest_on("tmeta", fragment, 0);
        let (mut plain, mut others) = (0, 0);
        for len in [0, 1, 2, 101, 1400] {
            for spec in all_specs(len) {
                guest.queue_frame(NetHeader::partial(&spec), &spec.build_partial(), 77);
                assert_eq!(guest.sent(), spec.build(), "{spec:?}");
                guest.tx.wait_used();
                *if is_plain(&spec) {
                    &mut plain
                } else {
                    &mut others
                } += 1;
            }
        }
        let counters = guest.control.counters();
        assert!(plain > 0 && others > 0);
        assert_eq!(counters.tx_checksums_offloaded, plain);
        assert_eq!(counters.tx_checksums, others);
        assert_eq!(asked.completed.load(Ordering::SeqCst), plain);
        guest.check_traffic();
    }
}

/// Also if the card, in the midst of a frame, does not want to any more.
#[test]
fn segments_that_the_card_completes_are_what_we_would_have_sent() {
    for (fragment, moody) in [(MAX_FRAME, 0), (70, 0), (MAX_FRAME, 3)] {
        let (mut guest, asked) = guest_on("tmetaseg", fragment, moody);
        let (mut all, mut plain) = (0, 0);
        for (len, piece) in [(1, 4096), (1001, 4096), (20_000, 1999), (60_000, 4096)] {
            for spec in all_specs(len) {
                let header = NetHeader::segments(&spec, 1000);
                guest.queue_frame(header, &spec.build_partial(), piece);
                for segment in segments(&spec, 1000) {
                    assert_eq!(guest.sent(), segment, "{len} bytes");
                    all += 1;
                    plain += u64::from(is_plain(&spec));
                }
                guest.tx.wait_used();
            }
            // The test's memory is bounded.
            guest.boot();
        }
        let counters = guest.control.counters();
        let completed = asked.completed.load(Ordering::SeqCst);
        assert_eq!(counters.tx_frames, all);
        assert_eq!(counters.tx_checksums_offloaded, completed);
        if moody == 0 {
            assert_eq!(completed, plain);
        } else {
            assert!(asked.refused.load(Ordering::SeqCst) > 0 && completed < plain);
        }
        guest.check_traffic();
    }
}

/// Whatever the guest asks for, the card gets to see what it understands only, and the rest is done here: by the
/// assertions of the card, and by the wire.
#[test]
fn what_a_card_does_not_find_is_done_by_us() {
    let (mut guest, asked) = guest_on("tmetaodd", MAX_FRAME, 0);
    let spec = FrameSpec::tcp(false, pattern(100, 1));
    let frame = spec.build_partial();
    let mut arp = frame.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut fragment = frame.clone();
    fragment[20] = 0x20;
    let padded = [frame.clone(), vec![0; 9]].concat();
    let asking = |start, offset| NetHeader {
        flags: NEEDS_CSUM,
        csum_start: start,
        csum_offset: offset,
        ..NetHeader::default()
    };
    for (header, frame) in [
        (asking(34, 16), arp),
        (asking(34, 16), fragment),
        (asking(34, 16), padded),
        (asking(34, 6), frame.clone()),
        (asking(14, 10), frame.clone()),
        (asking(36, 14), frame.clone()),
        (asking(34, 16), frame[..52].to_vec()),
        (asking(0, 0), pattern(14, 2)),
    ] {
        let (start, at) = (
            usize::from(header.csum_start),
            usize::from(header.csum_start + header.csum_offset),
        );
        let mut want = frame.clone();
        let sum = match !ones_sum(&frame[start..]) {
            0 => 0xffff,
            sum => sum,
        };
        want[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        guest.queue_frame(header, &frame, 4096);
        assert_eq!(guest.sent(), want, "{header:?}");
        guest.tx.wait_used();
    }
    assert_eq!(asked.completed.load(Ordering::SeqCst), 0);
    assert_eq!(guest.control.counters().tx_checksums, 8);
    guest.check_traffic();
}

/// Headers of all kinds, some of them wrong, at random.
#[test]
fn random_requests_are_met_the_same_with_and_without() {
    let mut numbers = Numbers(0x7a);
    let mut below = |end: usize| usize::try_from(numbers.next() % end as u64).unwrap();
    let (mut with, asked) = guest_on("tmetarnd", MAX_FRAME, 0);
    let mut without = NetGuest::start("tmetarn2");
    for round in 0..400usize {
        let specs = all_specs(below(1400));
        let spec = &specs[below(specs.len())];
        let mut frame = spec.build_partial();
        let mut header = NetHeader::partial(spec);
        if round % 4 == 0 {
            let at = 12 + below(frame.len().min(60) - 12);
            // The sums of the card are over what is there, as ours are.
            let field = spec.transport_start() + spec.checksum_offset();
            if !(field..field + 2).contains(&at) && at >= spec.transport_start() {
                frame[at] = frame[at].wrapping_add(1);
            }
        }
        if round % 5 == 0 {
            header.csum_start = u16::try_from(below(frame.len() - 1)).unwrap();
            header.csum_offset = 0;
        }
        with.queue_frame(header, &frame, 4096);
        without.queue_frame(header, &frame, 4096);
        assert_eq!(with.sent(), without.sent(), "{header:?} {spec:?}");
        with.tx.wait_used();
        without.tx.wait_used();
        if round % 50 == 49 {
            with.boot();
            without.boot();
        }
    }
    assert!(asked.completed.load(Ordering::SeqCst) > 100);
}

/// On the kernel, in both modes: what is left to it comes out right, where a veth's offload is off; else it comes out
/// undone, as all that a local sender sends over a veth.
#[test]
fn the_kernel_completes_what_is_left_to_it() {
    for mode in [AttachMode::Native, AttachMode::Skb] {
        let Some((near, far)) = veth() else { return };
        let config = PortConfig {
            ifname: near.clone(),
            mode: Some(mode),
            frames: 512,
            tx_metadata: TxMetadata::On,
            ..PortConfig::default()
        };
        if net_afxdp::Port::open(&config).is_err_and(|it| it.to_string().contains("Linux 6.8")) {
            eprintln!("SKIPPED: no TX metadata before Linux 6.8");
            return;
        }
        let (_near_port, mut queues) = open_config(&config);
        let (_far_port, wire) = open(far, mode);
        let mut guest = NetGuest::plug_on("tmetaveth", queues.remove(0), wire);
        guest.longest = 1514;
        for tx in ["on", "off"] {
            ethtool(&format!("-K {near} tx {tx}"));
            guest.boot();
            for spec in specs(1000) {
                let want = |spec: &FrameSpec| match tx {
                    "on" if is_plain(spec) => spec.build_partial(),
                    _ => spec.build(),
                };
                guest.queue_frame(NetHeader::partial(&spec), &spec.build_partial(), 4096);
                assert_eq!(guest.sent(), want(&spec), "{mode}, tx {tx}: {spec:?}");
                guest.tx.wait_used();
                let mut large = spec.clone();
                large.payload = pattern(10_000, 9);
                let header = NetHeader::segments(&large, 1400);
                guest.queue_frame(header, &large.build_partial(), 4096);
                for segment in segments(&large, 1400) {
                    let got = guest.sent();
                    assert_eq!(got.len(), segment.len());
                    if tx == "off" || !is_plain(&spec) {
                        assert_eq!(got, segment, "{mode}, tx {tx}: {spec:?}");
                    } else {
                        let mut got = got;
                        let start = u16::try_from(spec.transport_start()).unwrap();
                        let offset = u16::try_from(spec.checksum_offset()).unwrap();
                        Card::complete(&mut got, ChecksumRequest { start, offset });
                        assert_eq!(got, segment, "{mode}, tx {tx}: {spec:?}");
                    }
                }
                guest.tx.wait_used();
            }
            guest.check_traffic();
        }
        assert!(guest.control.counters().tx_checksums_offloaded > 60);
        guest.driver.write(devices::testing::register::STATUS, 0);
        let report = guest.control.reports().remove(0);
        assert!(report.frames.unwrap().adds_up());
        let of = |name| report.counters.iter().find(|it| it.0 == name).unwrap().1;
        assert_eq!((of("tx_lost"), of("xdp_tx_invalid_descs")), (0, 0));
    }
}
