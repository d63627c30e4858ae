//! 56: a guest that sends all it can, and a wire that brings all it can, against a rate limit.

use std::{
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use devices::{
    testing::{register, wait_for},
    virtio::net::{NetBackend, NetCounters, NetDevice, NetError, RateLimit, loopback::Loopback},
};
use net_afxdp::AttachMode;

use crate::{
    afxdp::{open_queues, veth_with},
    guest::*,
    pairs_guest::*,
};

const LEN: usize = 500;

/// How long each measurement takes.
const PERIOD: Duration = Duration::from_millis(1500);

/// One measurement at a time, or they take each other's processor.
static QUIET: Mutex<()> = Mutex::new(());

fn limit(packets: u64, bytes: u64) -> Option<RateLimit> {
    Some(RateLimit {
        packets_per_second: NonZeroU64::new(packets),
        bytes_per_second: NonZeroU64::new(bytes),
        // Long, for threads that don't run when they want to; 3.3 % of the period.
        burst: Duration::from_millis(50),
    })
}

fn on_loopback(name: &str, count: usize, rate: Option<RateLimit>) -> PairsGuest {
    let ends = (0..count).map(|_| Loopback::pair(MAX_FRAME).unwrap());
    let (near, far) = ends.unzip();
    start(PairsGuest::plug_limited(name, near, far, rate))
}

fn start<W: NetBackend>(mut guest: PairsGuest<W>) -> PairsGuest<W> {
    guest.boot();
    if guest.wires.len() > 1 {
        let count = guest.wires.len();
        assert_eq!(guest.set_pairs(count), OK);
    }
    guest
}

/// Fills the transmit queues, and empties the wires.
fn send_all<W: NetBackend>(guest: &mut PairsGuest<W>) {
    let frame = pattern(LEN, 1);
    for pair in 0..guest.pairs.len() {
        while guest.pairs[pair].tx.take_used().is_some() {}
        while guest.pairs[pair].tx.room() > 0 {
            guest.queue_frame(pair, &frame);
        }
        while let Some(sent) = take(&mut guest.wires[pair]) {
            assert_eq!(sent, frame);
        }
    }
}

/// Fills the wires, and empties the receive queues.
fn receive_all<W: NetBackend>(guest: &mut PairsGuest<W>) {
    let frame = pattern(LEN, 2);
    for pair in 0..guest.pairs.len() {
        let wire = &mut guest.wires[pair];
        for _ in 0..wire.room().min(32) {
            let _ = wire.send(LEN, |buffer| buffer.copy_from_slice(&frame));
        }
        let _ = wire.flush();
        while let Some(received) = guest.take_received(pair) {
            assert_eq!(received, frame);
        }
    }
}

/// Does `work` for a while, after the first burst was used up; `count` per second.
fn measure<W: NetBackend>(
    guest: &mut PairsGuest<W>,
    work: impl Fn(&mut PairsGuest<W>),
    count: impl Fn(&NetCounters) -> u64,
    limited: impl Fn(&NetCounters) -> u64,
) -> u64 {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let before = limited(&guest.control.counters());
    let control = guest.control.clone();
    wait_for("the limit", || {
        work(guest);
        (limited(&control.counters()) > before).then_some(())
    });
    let start = Instant::now();
    let first = count(&control.counters());
    while start.elapsed() < PERIOD {
        work(guest);
    }
    let counted = count(&control.counters()) - first;
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap();
    counted * 1_000_000 / micros
}

fn sent<W: NetBackend>(guest: &mut PairsGuest<W>) -> u64 {
    measure(guest, send_all, |it| it.tx_frames, |it| it.tx_limited)
}

fn received<W: NetBackend>(guest: &mut PairsGuest<W>) -> u64 {
    measure(guest, receive_all, |it| it.rx_frames, |it| it.rx_limited)
}

/// Never more than 5 % above. Below it may be, but not each time, on a machine that is busy with
/// other things.
fn assert_kept(what: &str, limit: u64, mut measure: impl FnMut() -> u64) {
    let enough = (0..5).any(|_| {
        let rate = measure();
        println!("{what}: {rate} frames a second of {limit}");
        assert!(rate * 100 <= limit * 105, "{what}: {rate} of {limit}");
        rate * 100 >= limit * 60
    });
    assert!(enough, "{what}: far below {limit} each time");
}

#[test]
fn the_limit_holds_each_way() {
    let mut guest = on_loopback("trate", 1, limit(2000, 0));
    assert_kept("sent", 2000, || sent(&mut guest));
    assert_kept("received", 2000, || received(&mut guest));
    // While it is full of work that must wait, the thread sleeps.
    send_all(&mut guest);
    receive_all(&mut guest);
    assert_idle("trate");
    guest.assert_sound();
}

#[test]
fn bytes_are_limited_without_headers() {
    let mut guest = on_loopback("trateb", 1, limit(0, 1_000_000));
    assert_kept("bytes", 1_000_000 / LEN as u64, || sent(&mut guest));
    // The stricter one counts.
    let mut guest = on_loopback("trateb2", 1, limit(1000, 50_000_000));
    assert_kept("both", 1000, || received(&mut guest));
}

/// The limit is the card's, however many pairs there are and however many the driver uses.
#[test]
fn pairs_share_the_limit() {
    let mut guest = on_loopback("trate3", 3, limit(3000, 0));
    assert_kept("three pairs sent", 3000, || sent(&mut guest));
    assert_kept("three pairs received", 3000, || received(&mut guest));
    // A pair that waits for its time can be given up.
    send_all(&mut guest);
    assert_eq!(guest.set_pairs(1), OK);
    guest.assert_sound();
}

/// Resets don't fill the bucket again.
#[test]
fn resets_are_no_way_around_the_limit() {
    let mut guest = on_loopback("tratere", 1, limit(500, 0));
    let begin = Instant::now();
    let mut resets = 0;
    while begin.elapsed() < PERIOD {
        guest.boot();
        send_all(&mut guest);
        guest.driver.write(register::STATUS, 0);
        resets += 1;
    }
    let millis = u64::try_from(begin.elapsed().as_millis()).unwrap();
    let frames = guest.control.counters().tx_frames;
    // The first burst, and what a turn passes before it looks at the clock.
    let most = 500 * millis / 1000 + 25 + 64;
    assert!(frames <= most, "{frames} of {most} in {resets} resets");
}

/// On a real interface: what comes too fast is dropped by the kernel, and no frame memory is lost.
fn over_veth(name: &str, mode: AttachMode) {
    let Some((near, far)) = veth_with(2) else {
        return;
    };
    let (_near_port, near) = open_queues(near, mode, 2);
    let (_far_port, far) = open_queues(far, mode, 2);
    let limit = limit(5000, 0);
    let mut guest = start(PairsGuest::plug_limited(name, near, far, limit));
    assert_kept("sent over veth", 5000, || sent(&mut guest));
    assert_kept("received over veth", 5000, || received(&mut guest));
    for _ in 0..50 {
        receive_all(&mut guest);
    }
    guest.driver.write(register::STATUS, 0);
    for report in guest.control.reports() {
        let frames = report.frames.unwrap();
        assert!(frames.adds_up(), "{frames:?}");
    }
    guest.boot();
    guest.assert_sound();
}

#[test]
fn the_limit_holds_over_veth_in_native_mode() {
    over_veth("txrate", AttachMode::Native);
}

#[test]
fn the_limit_holds_over_veth_in_skb_mode() {
    over_veth("txrates", AttachMode::Skb);
}

#[test]
fn impossible_limits_are_refused() {
    for (rate, words) in [
        (limit(0, 0), "packets or of bytes"),
        (
            limit(1, 0).map(|rate| RateLimit {
                burst: Duration::ZERO,
                ..rate
            }),
            "from 5ms to 10s long, not 0ns",
        ),
    ] {
        let (mut config, _) = config("tbadrate");
        config.rate = rate;
        let (near, _far) = Loopback::pair(MAX_FRAME).unwrap();
        let error = NetDevice::new(config, vec![near]).unwrap_err();
        assert!(matches!(error, NetError::Rate(_)));
        assert!(error.to_string().contains(words), "{error}");
    }
}
