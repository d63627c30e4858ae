//! What the card tells of itself through the control queue (VIRTIO_NET_F_DEVICE_STATS; virtio 1.3).

use devices::{
    testing::{Buffer, frames::FrameSpec, wait_for},
    virtio::net::NetBackend,
};
use net_afxdp::AttachMode;

use crate::{
    afxdp::{open, veth},
    guest::*,
    offload_guest::{NetHeader, segments},
    pairs_guest::*,
    queue_reset::enable,
};

const DEVICE_STATS: u64 = 1 << 50;

const RX_BASIC: u64 = 1;
const RX_GSO: u64 = 1 << 2;
const TX_BASIC: u64 = 1 << 16;
const TX_CSUM: u64 = 1 << 17;
const TX_GSO: u64 = 1 << 18;
const CONTROL: u64 = 1 << 32;

/// What follows the class in commands.
const QUERY: [u8; 2] = [8, 0];
const GET: [u8; 2] = [8, 1];

fn request(queue: u16, types: u64) -> Vec<u8> {
    let [low, high] = queue.to_le_bytes();
    [&[low, high, 0, 0, 0, 0, 0, 0][..], &types.to_le_bytes()].concat()
}

fn get(requests: &[(u16, u64)]) -> Vec<u8> {
    let requests = requests
        .iter()
        .flat_map(|&(queue, types)| request(queue, types));
    GET.into_iter().chain(requests).collect()
}

fn supported<W: NetBackend>(guest: &mut PairsGuest<W>) -> u64 {
    let answer = guest.command_with_room(&QUERY, 9);
    assert_eq!(answer[0], OK);
    u64::from_le_bytes(answer[1..].try_into().unwrap())
}

/// The numbers of one type of one queue.
fn numbers<W: NetBackend>(guest: &mut PairsGuest<W>, queue: u16, types: u64) -> Vec<u64> {
    let answer = guest.command_with_room(&get(&[(queue, types)]), 200);
    assert_eq!(answer[0], OK);
    let (header, rest) = answer[1..].split_at(8);
    let kind = u8::try_from(types.trailing_zeros()).unwrap();
    let [low, high] = queue.to_le_bytes();
    let [size, _] = u16::try_from(answer.len() - 1).unwrap().to_le_bytes();
    assert_eq!(header, [kind, 0, low, high, 0, 0, size, 0]);
    rest.chunks(8)
        .map(|it| u64::from_le_bytes(it.try_into().unwrap()))
        .collect()
}

#[test]
fn what_is_supported_goes_by_the_features() {
    const CSUM: u64 = 1;
    const GUEST_TSO: u64 = 3 << 7;
    const HOST_GSO: u64 = 3 << 11 | 1 << 56;
    let mut guest = PairsGuest::start("tstcap", 1);
    assert_ne!(guest.features & DEVICE_STATS, 0);
    let all = RX_BASIC | RX_GSO | TX_BASIC | TX_CSUM | TX_GSO | CONTROL;
    assert_eq!(supported(&mut guest), all);
    // ECN and the UDP kinds go with them.
    guest.features &= !(CSUM | GUEST_TSO | HOST_GSO | 1 << 9 | 1 << 13 | 3 << 54);
    guest.boot();
    let few = RX_BASIC | TX_BASIC | CONTROL;
    assert_eq!(supported(&mut guest), few);
    for (queue, types) in [(0, RX_GSO), (1, TX_CSUM), (1, TX_GSO)] {
        assert_eq!(guest.command(&get(&[(queue, types)])), ERR);
    }
    guest.features &= !DEVICE_STATS;
    guest.boot();
    assert_eq!(guest.command_with_room(&QUERY, 9), [ERR]);
    assert_eq!(guest.command_with_room(&get(&[(0, RX_BASIC)]), 99), [ERR]);
    guest.assert_sound();
}

#[test]
fn frames_are_counted_by_queue() {
    let mut guest = PairsGuest::start("tstcnt", 2);
    assert_eq!(guest.set_pairs(2), OK);
    for seed in 0..3 {
        guest.check_sent(1, &pattern(100, seed));
    }
    for seed in 0..5 {
        guest.check_received(1, 1, &pattern(200, seed));
    }
    // Too short for a frame, and too long for the wire.
    for len in [4, MAX_FRAME + 1] {
        guest.queue_frame(1, &pattern(len, 0));
        guest.pairs[1].tx.wait_used();
    }
    let rx = numbers(&mut guest, 2, RX_BASIC);
    assert_eq!(rx[1..], [5, 1000, rx[3], 0, 0]);
    assert!(rx[0] > 0 && rx[3] > 0, "kicks and interrupts: {rx:?}");
    let tx = numbers(&mut guest, 3, TX_BASIC);
    assert_eq!(tx[1..], [3, 300, tx[3], 2, 1]);
    assert!(tx[0] > 0, "kicks: {tx:?}");
    assert_eq!(numbers(&mut guest, 3, TX_CSUM), [3, 0]);
    assert_eq!(numbers(&mut guest, 3, TX_GSO), [0; 6]);
    assert_eq!(numbers(&mut guest, 2, RX_GSO), [0; 4]);
    // Those of the other pair are its own.
    assert_eq!(numbers(&mut guest, 0, RX_BASIC)[1..3], [0, 0]);
    assert_eq!(numbers(&mut guest, 1, TX_BASIC)[1..], [0; 5]);
    // With this one.
    let commands = numbers(&mut guest, 4, CONTROL);
    assert_eq!(commands, [9, 9]);
    assert_eq!(guest.command(&[99, 0]), ERR);
    assert_eq!(numbers(&mut guest, 4, CONTROL), [11, 10]);
    guest.assert_sound();
}

/// Sends a frame with that header by the first pair.
fn transmit(guest: &mut PairsGuest, header: NetHeader, frame: &[u8]) {
    let bytes = [&header.to_bytes()[..], frame].concat();
    let at = guest.driver.allocate(bytes.len(), 16);
    guest.driver.write_memory(at, &bytes);
    let len = u32::try_from(bytes.len()).unwrap();
    guest.pairs[0].tx.add(&[Buffer::readable(at, len)]);
    guest.driver.kick(TX);
    guest.pairs[0].tx.wait_used();
}

/// Large frames are one for the driver and several for the wire.
#[test]
fn segments_and_checksums_are_counted() {
    let mut guest = PairsGuest::start("tstgso", 1);
    let spec = FrameSpec::tcp(false, pattern(2500, 1));
    let (frame, headers) = (spec.build_partial(), spec.payload_start() as u64);
    let len = frame.len() as u64;
    transmit(&mut guest, NetHeader::segments(&spec, 1000), &frame);
    let on_wire = len + 2 * headers;
    assert_eq!(numbers(&mut guest, 1, TX_BASIC)[1..3], [3, on_wire]);
    assert_eq!(numbers(&mut guest, 1, TX_GSO), [1, len, 3, on_wire, 0, 0]);
    assert_eq!(numbers(&mut guest, 1, TX_CSUM), [0, 1]);
    transmit(&mut guest, NetHeader::partial(&spec), &frame);
    transmit(&mut guest, NetHeader::default(), &frame);
    assert_eq!(numbers(&mut guest, 1, TX_CSUM), [1, 2]);
    assert_eq!(numbers(&mut guest, 1, TX_GSO)[..3], [1, len, 3]);

    // They wait for the queue, and so are one burst.
    guest.driver.reset_queue(RX);
    for segment in segments(&spec, 1000) {
        send(&mut guest.wires[0], &segment);
    }
    enable(&mut guest, 0, RX, QUEUE_SIZE);
    let large = wait_for("the frame", || guest.take_received(0));
    assert_eq!(large.len() as u64, len);
    assert_eq!(numbers(&mut guest, 0, RX_BASIC)[1..3], [1, len]);
    assert_eq!(numbers(&mut guest, 0, RX_GSO), [1, len, 3, on_wire]);
    guest.assert_sound();
}

#[test]
fn one_command_asks_for_several_and_gets_what_fits() {
    let mut guest = PairsGuest::start("tstfit", 2);
    let wanted = [
        (0, RX_BASIC | RX_GSO),
        (1, TX_BASIC | TX_CSUM | TX_GSO),
        (4, CONTROL),
        (3, 0),
        (2, RX_GSO),
        (2, RX_GSO),
    ];
    let sizes = [56, 40, 56, 24, 56, 24, 40, 40];
    let all: usize = sizes.iter().sum();
    for room in 0..all + 20 {
        let answer = guest.command_with_room(&get(&wanted), u32::try_from(1 + room).unwrap());
        assert_eq!(answer[0], OK);
        let mut fits = 0;
        for size in sizes {
            if fits + size > room {
                break;
            }
            assert_eq!(usize::from(answer[1 + fits + 6]), size);
            fits += size;
        }
        assert_eq!(answer.len(), 1 + fits, "room for {room} bytes");
    }
    for room in 1..9 {
        assert_eq!(guest.command_with_room(&QUERY, room), [ERR]);
    }
    guest.assert_sound();
}

/// 27: if one thing is wrong, all of it is refused.
#[test]
fn impossible_questions_are_refused() {
    let mut guest = PairsGuest::start("tst27", 2);
    let good = (0, RX_BASIC);
    for bad in [
        (5, 0),
        (0xffff, RX_BASIC),
        (0, TX_BASIC),
        (1, RX_BASIC),
        (4, RX_BASIC),
        (0, CONTROL),
        // Not counted: checksums of what is received, frames over the speed.
        (0, 1 << 1),
        (0, 1 << 3),
        (1, 1 << 19),
        (0, RX_BASIC | 1 << 63),
        (1, u64::MAX),
    ] {
        for requests in [vec![bad], vec![good, bad], vec![bad, good]] {
            assert_eq!(
                guest.command_with_room(&get(&requests), 99),
                [ERR],
                "{bad:?}"
            );
        }
    }
    let right = get(&[good, good]);
    for len in (2..right.len()).filter(|len| len % 16 != 2 || *len == 2) {
        assert_eq!(
            guest.command_with_room(&right[..len], 99),
            [ERR],
            "{len} bytes"
        );
    }
    assert_eq!(
        guest.command_with_room(&[&right[..], &[0]].concat(), 99),
        [ERR]
    );
    assert_eq!(
        guest.command_with_room(&[8, 0, 0], 9),
        [ERR],
        "nothing goes with it"
    );
    assert_eq!(guest.command_with_room(&[8, 2], 9), [ERR]);
    assert_eq!(guest.command_with_room(&right, 200)[0], OK);
    // The longest that is looked at, and one more.
    let many = |count| get(&vec![(1, 0); count]);
    let at = guest.driver.allocate(32 << 10, 16);
    for (count, answer) in [(1024, OK), (1025, ERR)] {
        let command = many(count);
        guest.driver.write_memory(at, &command);
        assert_eq!(guest.command_at(at, command.len()), answer, "{count}");
    }
    guest.assert_sound();
}

/// Without a control queue at that place the numbers of queues are others.
#[test]
fn without_mq_the_control_queue_is_the_third() {
    let mut guest = PairsGuest::start("tstmq", 2);
    guest.features &= !MQ;
    guest.boot();
    assert_eq!(numbers(&mut guest, 2, CONTROL), [1, 1]);
    assert_eq!(guest.command(&get(&[(4, CONTROL)])), ERR);
    guest.assert_sound();
}

/// What the kernel threw away because the guest gave no buffers is known to it while it runs.
#[test]
fn frames_that_there_was_no_room_for_are_counted() {
    let Some((near, far)) = veth() else { return };
    let (_near, backend) = open(near, AttachMode::Native);
    let (_far, wire) = open(far, AttachMode::Native);
    let mut guest = PairsGuest::plug_on("tstlost", vec![backend], vec![wire]);
    guest.boot();
    let mut sent = 0;
    wait_for("losses", || {
        for seed in 0..100 {
            send(&mut guest.wires[0], &pattern(60, seed));
            sent += 1;
        }
        let rx = numbers(&mut guest, 0, RX_BASIC);
        assert_eq!(rx[4], rx[5], "none for other reasons");
        (rx[5] > 100).then_some(())
    });
    let rx = numbers(&mut guest, 0, RX_BASIC);
    assert!(rx[1] + rx[5] <= sent, "{rx:?} of {sent}");
    guest.assert_sound();
}
