//! Frames that are longer than a page, and than a chunk of the back end's memory.

use devices::{
    testing::{Buffer, TestDriver, register, wait_for},
    virtio::net::{NetBackend, NetConfig, NetDevice, loopback::Loopback},
};
use net_afxdp::AttachMode;

use crate::{
    afxdp::{ip, open, veth},
    guest::*,
};

/// What a card for this MTU tells the guest on back ends that send so long frames.
fn told(mtu: u16, max_frames: [usize; 2]) -> u16 {
    let ends = max_frames.map(|max_frame| Loopback::pair(max_frame).unwrap());
    let near = ends.into_iter().map(|(near, _)| near).collect();
    let (config, _) = config("tmtu");
    let config = NetConfig {
        mtu: Some(mtu),
        ..config
    };
    let mut driver = TestDriver::on(crate::FACE, NetDevice::new(config, near).unwrap());
    assert_ne!(driver.offered() & MTU_FEATURE, 0);
    u16::from_le_bytes(driver.config::<2>(10))
}

/// The guest is told what works rather than refused.
#[test]
fn the_guest_is_told_the_mtu_that_works() {
    for (mtu, max_frames, most) in [
        (1500, [1514, 1514], 1500),
        (1501, [1514, 1514], 1500),
        (9000, [9014, 3840], 3826),
        (9000, [82, 9014], 68),
        (68, [9014, 9014], 68),
        (9000, [9014, 9018], 9000),
        (u16::MAX, [65549, 70_000], u16::MAX),
    ] {
        assert_eq!(told(mtu, max_frames), most, "{mtu} on {max_frames:?}");
    }
}

/// A guest whose frames are up to an MTU of 9000.
struct LargeGuest<W> {
    guest: NetGuest<W>,
    memory: u64,
}

impl<W: NetBackend> LargeGuest<W> {
    fn new<B: NetBackend>(name: &str, near: B, wire: W, without: u64) -> Self {
        let mut guest = NetGuest::plug_on(name, near, wire);
        guest.features &= !without;
        guest.boot();
        let memory = guest.driver.allocate(10_000, 1);
        Self { guest, memory }
    }

    /// Sends a frame in buffers of `piece` bytes.
    fn check_sent(&mut self, frame: &[u8], piece: usize) {
        let guest = &mut self.guest;
        let bytes = with_header(frame);
        guest.driver.write_memory(self.memory, &bytes);
        let mut address = self.memory;
        let mut chain = Vec::new();
        for part in bytes.chunks(piece) {
            let len = u32::try_from(part.len()).unwrap();
            chain.push(Buffer::readable(address, len));
            address += u64::from(len);
        }
        guest.tx.add(&chain);
        guest.driver.kick_if_wanted(&mut guest.tx);
        guest.tx.wait_used();
        assert_eq!(guest.sent(), frame, "{} bytes sent", frame.len());
    }

    /// Receives a frame into so many buffers of `room` bytes as it needs.
    fn check_received(&mut self, frame: &[u8], room: u32) {
        let guest = &mut self.guest;
        for _ in 0..(frame.len() + HEADER).div_ceil(room as usize) {
            guest.post(room);
        }
        guest.inject(frame);
        assert_eq!(guest.received(), frame, "{} bytes received", frame.len());
        assert_eq!(guest.rx.room(), usize::from(QUEUE_SIZE), "buffers left");
    }
}

const LENGTHS: [usize; 10] = [60, 1514, 3840, 3841, 4096, 4097, 7680, 8192, 8193, 9014];

#[test]
fn large_frames_over_a_back_end_of_several_chunks() {
    for chunk in [1000, 3840, 4096] {
        for without in [0, MRG_RXBUF] {
            let (near, wire) = Loopback::pair(9014).unwrap();
            let (near, wire) = (near.with_fragments(chunk), wire.with_fragments(4096));
            let mut large = LargeGuest::new("tlarge", near, wire, without);
            for (seed, len) in LENGTHS.into_iter().enumerate() {
                let frame = pattern(len, seed);
                for piece in [512, 4096, 10_000] {
                    large.check_sent(&frame, piece);
                }
                // Without mergeable buffers there is one for each frame.
                let rooms = [1536, 4096, 9026];
                for room in rooms.into_iter().filter(|&it| without == 0 || it > 9000) {
                    large.check_received(&frame, room);
                }
            }
            large.guest.assert_sound();
        }
    }
}

/// One byte too many for the back end is dropped and counted, in many chunks as in one.
#[test]
fn longer_frames_are_dropped() {
    let (near, wire) = Loopback::pair(9014).unwrap();
    let near = near.with_fragments(4096);
    let mut large = LargeGuest::new("tlong", near, wire, 0);
    let address = large.guest.driver.allocate(9015 + HEADER, 1);
    large.guest.tx.add(&[
        Buffer::readable(address, 9015 + 12),
        Buffer::readable(address, 0),
    ]);
    large.guest.driver.kick(TX);
    large.guest.tx.wait_used();
    assert_eq!(large.guest.control.counters().tx_too_long, 1);
    assert!(large.guest.wire_is_empty());
    large.check_sent(&pattern(9014, 1), 4096);
}

/// On a veth with an MTU of 9000: several chunks each way where the kernel has them, and else what
/// fits into one.
fn over_veth(name: &str, mode: AttachMode) {
    let Some((near, far)) = veth() else { return };
    ip(&format!("link set dev {near} mtu 9000"));
    ip(&format!("link set dev {far} mtu 9000"));
    let (near_port, near) = open(near, mode);
    let (far_port, far) = open(far, mode);
    let mtu = near_port.mtu().min(far_port.mtu()) as usize;
    let mut large = LargeGuest::new(name, near, far, 0);
    for (seed, len) in LENGTHS.into_iter().enumerate() {
        let frame = pattern(len, seed);
        if len <= mtu + 14 {
            large.check_sent(&frame, 4096);
            large.check_received(&frame, 1536);
        }
    }
    // Many, so that the rings and the frame memory go round.
    for seed in 0..300 {
        let frame = pattern(60 + seed * 2999 % (mtu - 60), seed);
        large.check_sent(&frame, 4096);
        large.check_received(&frame, 4096);
        if seed % 50 == 49 {
            // The test's guest memory is used up.
            large.guest.boot();
            large.memory = large.guest.driver.allocate(10_000, 1);
        }
    }
    large.guest.driver.write(register::STATUS, 0);
    let frames = large.guest.control.reports()[0].frames.unwrap();
    assert!(frames.adds_up(), "{frames:?}");
    assert!(mtu >= 3500, "an MTU of {mtu}");
    large.guest.assert_sound();
}

#[test]
fn large_frames_over_veth_in_native_mode() {
    over_veth("txlarge", AttachMode::Native);
}

#[test]
fn large_frames_over_veth_in_skb_mode() {
    over_veth("txlarges", AttachMode::Skb);
}

/// The wire brings more large frames than the guest has buffers for: none is delivered in part, and
/// what was kept comes whole.
#[test]
fn large_frames_wait_whole_for_buffers() {
    let (near, wire) = Loopback::pair(9014).unwrap();
    let mut large = LargeGuest::new("tlwait", near.with_fragments(4096), wire, 0);
    for round in 0..20 {
        let frame = pattern(9014, round);
        large.guest.inject(&frame);
        for _ in 0..5 {
            large.guest.post(1536);
        }
        let control = large.guest.control.clone();
        wait_for("the wait for buffers", || {
            (control.counters().rx_starved > round as u64).then_some(())
        });
        assert!(large.guest.rx.take_used().is_none());
        large.guest.post(1536);
        assert_eq!(large.guest.received(), frame);
    }
    large.guest.assert_sound();
}
