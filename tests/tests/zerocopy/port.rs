//! `net-afxdp` alone: both ends of the wire are open with zero-copy, on two queues each.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use net_afxdp::{AttachMode, LinkMonitor, OpenError, Port, PortConfig, Queue, Require};
use ringwire_tests::Wire;

use crate::frame::{frame, number_of};

const FRAMES: u32 = 2000;

/// Sent before the next are: far fewer than an emulated card holds.
const BURST: u32 = 40;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn open(wire: &Wire, near: bool, config: PortConfig) -> (Port, Vec<Queue>) {
    let mut port = try_open(wire, near, config).unwrap_or_else(|error| panic!("{error}"));
    let queues = port.take_queues();
    (port, queues)
}

/// Opens the card at that end of the wire.
pub(crate) fn try_open(wire: &Wire, near: bool, config: PortConfig) -> Result<Port, OpenError> {
    let ifname = if near {
        Wire::IFNAME
    } else {
        Wire::PEER_IFNAME
    };
    let config = PortConfig {
        ifname: ifname.to_owned(),
        ..config
    };
    // The interface's namespace is entered by a thread that ends with this.
    let opened = thread::scope(|scope| {
        scope
            .spawn(|| {
                wire.enter(near);
                Port::open(&config)
            })
            .join()
    });
    opened.expect("it does not panic")
}

/// Frames of `seed` from one end to the other, over all queues in turn, all checked; how many came over each queue.
pub(crate) fn transfer(from: &mut [Queue], to: &mut [Queue], seed: u64) -> Vec<usize> {
    let mut came = vec![0; to.len()];
    let mut missing = BTreeSet::new();
    for first in (0..FRAMES).step_by(usize::try_from(BURST).unwrap()) {
        for number in first..first + BURST {
            let queue = usize::try_from(number).unwrap() % from.len();
            let queue = &mut from[queue];
            let bytes = frame(seed, number);
            queue
                .send(bytes.len(), |buffer| buffer.copy_from_slice(&bytes))
                .expect("there is room");
            missing.insert(number);
        }
        let deadline = Instant::now() + PATIENCE;
        while !missing.is_empty() {
            assert!(Instant::now() < deadline, "{missing:?} did not come");
            for queue in from.iter_mut() {
                queue.flush().expect("the link is up");
            }
            for (queue, came) in to.iter_mut().zip(&mut came) {
                queue.receive(64, |fragments| {
                    // Others may speak on the wire; what is wrong is never taken for right, so that it is missing.
                    if number_of(seed, &fragments.concat()).is_some_and(|it| missing.remove(&it)) {
                        *came += 1;
                    }
                    ControlFlow::Continue(())
                });
            }
            thread::yield_now();
        }
    }
    came
}

/// Publishes what is left; then no descriptor was invalid, and every frame is somewhere.
pub(crate) fn assert_all_well<'a>(queues: impl Iterator<Item = &'a mut Queue>) {
    for queue in queues {
        queue.flush().expect("the link is up");
        let counters = queue.counters();
        assert_eq!(counters.invalid_descriptors, 0, "{counters:?}");
        assert_eq!(queue.statistics().unwrap().tx_invalid_descs, 0);
        let accounting = queue.accounting();
        assert!(accounting.is_balanced(), "{accounting:?}");
    }
}

fn zero_copy() -> PortConfig {
    PortConfig {
        queues: 2,
        require: Require::ZeroCopy,
        ..PortConfig::default()
    }
}

#[test]
fn frames_arrive_whole_both_ways_over_two_queues() {
    let wire = Wire::of_cards();
    let (near, mut near_queues) = open(&wire, true, zero_copy());
    let (far, mut far_queues) = open(&wire, false, zero_copy());
    wire.wait_for_carrier();
    assert_eq!(
        (near.mode(), far.mode()),
        (AttachMode::Native, AttachMode::Native)
    );
    for queue in near_queues.iter().chain(&far_queues) {
        assert!(queue.zero_copy(), "queue {} copies", queue.id());
    }
    let there = transfer(&mut near_queues, &mut far_queues, 31);
    let back = transfer(&mut far_queues, &mut near_queues, 32);
    println!("frames over each queue: {there:?} there, {back:?} back");
    for count in there.iter().chain(&back) {
        assert!(
            *count > 0,
            "RSS gave one queue nothing: {there:?}, {back:?}"
        );
    }
    assert_all_well(near_queues.iter_mut().chain(&mut far_queues));
}

#[test]
fn copies_where_they_are_asked_for() {
    let wire = Wire::of_cards();
    let config = PortConfig {
        force_copy: true,
        ..PortConfig::default()
    };
    let (port, queues) = open(&wire, true, config);
    assert_eq!(port.mode(), AttachMode::Native);
    assert!(!queues[0].zero_copy());
}

/// The middle of some durations, and the longest.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    let longest = times.last().copied().unwrap_or_default();
    format!("median {middle:.1?}, longest {longest:.1?}")
}

#[test]
#[ignore = "prints figures; docs/figures.md has them, and how to run this"]
fn measure_opening_and_closing() {
    let wire = Wire::of_cards();
    let skb = PortConfig {
        mode: Some(AttachMode::Skb),
        ..PortConfig::default()
    };
    let copy = PortConfig {
        force_copy: true,
        ..PortConfig::default()
    };
    let zero_copy = PortConfig {
        require: Require::ZeroCopy,
        ..PortConfig::default()
    };
    for (name, config) in [
        ("skb", skb),
        ("native, copy", copy),
        ("zero-copy", zero_copy),
    ] {
        let (mut opening, mut closing) = (Vec::new(), Vec::new());
        for _ in 0..15 {
            let start = Instant::now();
            let opened = open(&wire, true, config.clone());
            opening.push(start.elapsed());
            let start = Instant::now();
            drop(opened);
            closing.push(start.elapsed());
            thread::sleep(Duration::from_millis(300));
        }
        println!(
            "{name}: {} MiB locked per queue; open {}; close {}",
            config.locked_memory() >> 20,
            summary(opening),
            summary(closing)
        );
    }
}

#[test]
#[ignore = "prints figures; docs/figures.md has them, and how to run this"]
fn measure_noticing_a_lost_interface() {
    let mut noticed = Vec::new();
    for _ in 0..15 {
        let wire = Wire::of_cards();
        let (port, _queues) = open(&wire, true, PortConfig::default());
        let index = port.interface().index();
        let start = thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                wire.enter(true);
                let mut monitor = LinkMonitor::open(index).unwrap();
                let deadline = Instant::now() + PATIENCE;
                while Instant::now() < deadline {
                    if monitor.next_event().unwrap() == Some(net_afxdp::LinkEvent::Gone) {
                        return Instant::now();
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                panic!("not noticed");
            });
            thread::sleep(Duration::from_millis(300));
            let start = Instant::now();
            wire.near(&format!("ip link set {} netns 1", Wire::IFNAME));
            watcher.join().unwrap() - start
        });
        noticed.push(start);
    }
    println!(
        "lost (moved to another namespace), noticed after {}",
        summary(noticed)
    );
}
