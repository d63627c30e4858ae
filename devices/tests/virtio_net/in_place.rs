//! Frames that are sent from guest memory, on real veth pairs: by content, given back when they have been
//! read and not before, whatever the guest does meanwhile.

use devices::{
    GuestRam,
    testing::{Buffer, RAM_END, SEAM, Used, ram, register, wait_for},
    virtio::net::{
        BusyPoll,
        afxdp::{AfXdpBackend, shared_memory},
    },
};
use net_afxdp::{AttachMode, Port, PortConfig, Source};

use crate::{
    afxdp::{ip, open, open_queues, veth, veth_with},
    guest::*,
    pairs_guest::{OK, PairsGuest},
};

const MODES: [AttachMode; 2] = [AttachMode::Native, AttachMode::Skb];

type Guest = NetGuest<AfXdpBackend>;

/// A guest whose card sends from its memory, and the ports that are to be kept.
pub(crate) fn plug(name: &str, near: &str, far: &str, mode: AttachMode) -> (Guest, [Port; 2]) {
    let ram = ram();
    let (port, mut backends) = open_sharing(&ram, near, mode, 1);
    let backend = backends.pop().unwrap();
    let (far_port, wire) = open(far.to_owned(), mode);
    let mut guest = NetGuest::plug_in(ram, name, backend, wire, BusyPoll::Adaptive);
    guest.longest = 1514;
    (guest, [port, far_port])
}

fn open_sharing(
    ram: &GuestRam,
    ifname: &str,
    mode: AttachMode,
    queues: u32,
) -> (Port, Vec<AfXdpBackend>) {
    let memory = shared_memory(ram).unwrap();
    let config = PortConfig {
        ifname: ifname.to_owned(),
        mode: Some(mode),
        frames: 512,
        queues,
        scattered: true,
        ..PortConfig::default()
    };
    let mut port = Port::open_sharing(&config, Source::OwnProgram, Some(&memory)).unwrap();
    let backends = port.take_queues().into_iter().map(AfXdpBackend).collect();
    (port, backends)
}

/// Ends the driver and checks that nothing is missing.
pub(crate) fn assert_all_is_back(guest: &mut Guest) {
    guest.driver.write(register::STATUS, 0);
    let report = &guest.control.reports()[0];
    let frames = report.frames.unwrap();
    assert!(frames.adds_up() && frames.total == 512, "{frames:?}");
    for name in ["tx_lost", "invalid_descriptors", "xdp_tx_invalid_descs"] {
        let counter = report.counters.iter().find(|(n, _)| *n == name);
        assert_eq!(counter.unwrap().1, 0, "{name}");
    }
    assert_eq!(guest.control.counters().tx_unreturned, 0);
    guest.assert_sound();
}

#[test]
fn frames_go_out_from_guest_memory() {
    let Some((near, far)) = veth() else { return };
    for mode in MODES {
        let (mut guest, _ports) = plug("ipwhole", &near, &far, mode);
        for round in 0..10 {
            guest.boot();
            guest.check_traffic();
            for seed in 0..100 {
                let frame = pattern(14 + (seed * 37 + round) % 1500, seed);
                guest.transmit(&frame);
                assert_same(guest.sent(), &frame);
            }
        }
        let counters = guest.control.counters();
        assert_eq!(counters.tx_frames, 1040);
        // Those of 768 bytes or more.
        assert!(counters.tx_in_place > 400, "{counters:?}");
        assert_all_is_back(&mut guest);
    }
}

/// Buffers wherever they can be: over pages, over the end of a region, in many pieces.
#[test]
fn scattered_frames_are_whole() {
    let Some((near, far)) = veth() else { return };
    let (mut guest, _ports) = plug("ipscat", &near, &far, AttachMode::Native);
    guest.boot();
    let frame = pattern(1514, 3);
    let bytes = with_header(&frame);
    for cuts in [
        &[0, 1526][..],
        &[0, 12, 1526],
        // The header in two buffers, the second with bytes of the frame.
        &[0, 5, 1526],
        &[0, 12, 140, 1526],
        // Too short a start for the kernel, and too many pieces: copied.
        &[0, 12, 139, 1526],
        &[0, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1526],
        &[0, 13, 14, 15, 16, 1526],
    ] {
        for base in [
            0x40_0000,
            0x40_0800 - 1,
            SEAM - 100,
            SEAM - 1000,
            RAM_END - 0x10_0000,
        ] {
            let mut at = base;
            let mut buffers = Vec::new();
            for ends in cuts.windows(2) {
                let part = &bytes[ends[0]..ends[1]];
                guest.driver.write_memory(at, part);
                buffers.push(Buffer::readable(at, u32::try_from(part.len()).unwrap()));
                // Next to each other at first, then apart.
                at += part.len() as u64 + if ends[0] > 400 { 5000 } else { 0 };
            }
            let head = guest.tx.add(&buffers);
            guest.driver.kick_if_wanted(&mut guest.tx);
            let used = guest.tx.wait_used();
            assert_eq!((used.head, used.len), (head.into(), 0));
            assert_eq!(guest.sent(), frame, "{cuts:?} at {base:#x}");
        }
    }
    let counters = guest.control.counters();
    assert_eq!(counters.tx_frames, 35);
    // Before Linux 6.6 only those in one page.
    assert!(counters.tx_in_place >= 2, "{counters:?}");
    assert_all_is_back(&mut guest);
}

/// While the link is down, frames wait in guest memory; the guest has none of them back, and they are
/// as they are when it comes up.
#[test]
fn buffers_come_back_when_the_wire_has_read_them_and_not_before() {
    let Some((near, far)) = veth() else { return };
    for mode in MODES {
        let (mut guest, _ports) = plug("ipdown", &near, &far, mode);
        guest.boot();
        guest.check_traffic();
        ip(&format!("link set dev {near} down"));
        let heads: Vec<_> = (0..8)
            .map(|seed| guest.queue_bytes(&with_header(&pattern(1000, seed))))
            .collect();
        wait_for("the error", || {
            (guest.control.counters().tx_carrier_errors > 0).then_some(())
        });
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(guest.tx.take_used(), None, "nobody has read it");
        assert_idle("ipdown");
        ip(&format!("link set dev {near} up"));
        for (seed, head) in heads.into_iter().enumerate() {
            let len = 0;
            let head = head.into();
            assert_eq!(guest.tx.wait_used(), Used { head, len }, "{mode}");
            assert_eq!(guest.sent(), pattern(1000, seed), "{mode}");
        }
        guest.check_traffic();
        assert_all_is_back(&mut guest);
    }
}

/// A reset takes back what waits for the link: the guest's memory is its own again, and the frames go out as
/// they were.
#[test]
fn a_reset_leaves_nothing_in_guest_memory() {
    let Some((near, far)) = veth() else { return };
    for mode in MODES {
        let (mut guest, _ports) = plug("ipreset", &near, &far, mode);
        guest.boot();
        guest.check_traffic();
        ip(&format!("link set dev {near} down"));
        for seed in 0..8 {
            guest.queue_bytes(&with_header(&pattern(1000, seed)));
        }
        wait_for("all of them", || {
            (guest.control.counters().tx_frames >= 4 + 8).then_some(())
        });
        assert_all_is_back(&mut guest);
        guest.driver.write_memory(0x1000, &vec![0xee; 0xf0_0000]);
        guest.boot();
        ip(&format!("link set dev {near} up"));
        for seed in 0..8 {
            assert_eq!(guest.sent(), pattern(1000, seed), "{mode}");
        }
        guest.check_traffic();
        assert_all_is_back(&mut guest);
    }
}

/// The same of the transmit queue alone: the receive queue goes on, and the new queue knows nothing of the old one's
/// frames.
#[test]
fn a_queue_reset_leaves_nothing_in_guest_memory() {
    let Some((near, far)) = veth() else { return };
    for mode in MODES {
        let (mut guest, _ports) = plug("ipqreset", &near, &far, mode);
        guest.boot();
        guest.check_traffic();
        for round in 0..3 {
            ip(&format!("link set dev {near} down"));
            let before = guest.control.counters().tx_frames;
            for seed in 0..8 {
                guest.queue_bytes(&with_header(&pattern(1000, seed)));
            }
            wait_for("all of them", || {
                (guest.control.counters().tx_frames == before + 8).then_some(())
            });
            guest.driver.reset_queue(TX);
            assert_eq!(guest.control.counters().tx_unreturned, 0);
            guest
                .driver
                .write_memory(guest.tx_slots, &vec![0xee; 64 * 4096]);
            guest.tx = guest.driver.queue(TX, QUEUE_SIZE << round);
            ip(&format!("link set dev {near} up"));
            for seed in 0..8 {
                assert_eq!(guest.sent(), pattern(1000, seed), "{mode}");
            }
            assert_eq!(
                guest.tx.take_used(),
                None,
                "they are none of the new queue's"
            );
            guest.check_traffic();
        }
        assert_all_is_back(&mut guest);
    }
}

#[test]
fn resets_in_the_middle_of_bursts_lose_nothing() {
    let Some((near, far)) = veth() else { return };
    let (mut guest, _ports) = plug("ipload", &near, &far, AttachMode::Native);
    for round in 0..200 {
        guest.boot();
        for seed in 0..40 {
            guest.queue_bytes(&with_header(&pattern(300 + 30 * seed, seed)));
        }
        if round % 2 == 0 {
            guest.tx.wait_used();
        }
        guest.driver.write(register::STATUS, 0);
        let frames = guest.control.reports()[0].frames.unwrap();
        assert!(frames.adds_up(), "round {round}: {frames:?}");
        while take(&mut guest.wire).is_some() {}
    }
    guest.boot();
    while take(&mut guest.wire).is_some() {}
    guest.check_traffic();
    assert_all_is_back(&mut guest);
}

/// A guest that writes to a frame after it gave it away, and gives the same one away many times: what
/// goes out are bytes of that buffer and no others, of the length that was said.
#[test]
fn a_frame_that_the_guest_changes_is_its_own() {
    let Some((near, far)) = veth() else { return };
    let (mut guest, _ports) = plug("iphost", &near, &far, AttachMode::Native);
    guest.boot();
    // The frame, amid bytes that must never be seen.
    let (page, start) = (0x50_0000, 0x50_0400);
    guest.driver.write_memory(page, &[0xee; 0x2000]);
    let ender = Ender::default();
    let memory = guest.driver.ram().clone();
    std::thread::scope(|scope| {
        let _guard = ender.guard();
        scope.spawn(|| {
            use vm_memory::{Bytes, GuestAddress};
            // The guest's other CPU: scribbles over frame and header alike.
            let mut byte = 0;
            while ender.goes_on() {
                byte = (byte + 1) % 0xee;
                let bytes = [byte; 1012];
                memory.write_slice(&bytes, GuestAddress(start)).unwrap();
            }
        });
        for round in 0..500 {
            let heads: Vec<_> = (0..16)
                .map(|_| guest.tx.add(&[Buffer::readable(start, 1012)]))
                .collect();
            guest.driver.kick_if_wanted(&mut guest.tx);
            let mut back: Vec<_> = heads.iter().map(|_| guest.tx.wait_used().head).collect();
            back.sort_unstable();
            let mut given: Vec<u32> = heads.into_iter().map(u32::from).collect();
            given.sort_unstable();
            assert_eq!(back, given, "round {round}");
            while let Some(frame) = take(&mut guest.wire) {
                assert_eq!(frame.len(), 1000);
                assert!(!frame.contains(&0xee), "bytes from elsewhere");
            }
        }
    });
    let counters = guest.control.counters();
    let sum = counters.tx_frames + counters.tx_bad_offload;
    assert_eq!(sum, 8000, "{counters:?}");
    assert_all_is_back(&mut guest);
}

/// A chain that breaks the rules while others are out there.
#[test]
fn a_fault_with_frames_in_flight_waits_for_the_reset() {
    let Some((near, far)) = veth() else { return };
    let (mut guest, _ports) = plug("ipfault", &near, &far, AttachMode::Native);
    guest.boot();
    guest.check_traffic();
    ip(&format!("link set dev {near} down"));
    for seed in 0..4 {
        guest.queue_bytes(&with_header(&pattern(1000, seed)));
    }
    guest.tx.add(&[Buffer::readable(RAM_END, 1000)]);
    guest.driver.kick(TX);
    guest.driver.wait_needs_reset();
    ip(&format!("link set dev {near} up"));
    for seed in 0..4 {
        assert_eq!(guest.sent(), pattern(1000, seed));
    }
    guest.boot();
    guest.check_traffic();
    assert_all_is_back(&mut guest);
}

/// A driver that gives a pair up has its buffers back, and its frames go out all the same.
#[test]
fn a_pair_that_is_given_up_returns_its_buffers() {
    let Some((near, far)) = veth_with(2) else {
        return;
    };
    let ram = ram();
    let (_near_port, backends) = open_sharing(&ram, &near, AttachMode::Native, 2);
    let (_far_port, wires) = open_queues(far, AttachMode::Native, 2);
    let mut guest = PairsGuest::plug_in(ram, "ipmq", backends, wires);
    guest.boot();
    guest.learn_the_wires();
    guest.check_traffic(2);
    ip(&format!("link set dev {near} down"));
    for seed in 0..8 {
        guest.queue_frame(1, &pattern(1000, seed));
    }
    wait_for("the error", || {
        (guest.control.counters().tx_carrier_errors > 0).then_some(())
    });
    assert_eq!(guest.set_pairs(1), OK);
    let back: Vec<_> = std::iter::from_fn(|| guest.pairs[1].tx.take_used()).collect();
    assert_eq!(back.len(), 8);
    assert_eq!(guest.control.counters().tx_unreturned, 0);
    guest.driver.write_memory(0xe0_0000, &vec![0xee; 0x10_0000]);
    ip(&format!("link set dev {near} up"));
    guest.check_traffic(1);
    assert_eq!(guest.set_pairs(2), OK);
    let wire = guest.leaves[1];
    for seed in 0..8 {
        let sent = wait_for("a frame that waited", || take(&mut guest.wires[wire]));
        assert_eq!(sent, pattern(1000, seed));
    }
    guest.check_traffic(2);
    guest.driver.write(register::STATUS, 0);
    for report in guest.control.reports() {
        assert!(report.frames.unwrap().adds_up(), "{report:?}");
    }
    guest.assert_sound();
}
