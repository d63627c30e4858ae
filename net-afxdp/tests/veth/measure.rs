//! Figures, not judgements: `cargo test --release -p net-afxdp --test veth measure -- --ignored
//! --nocapture`.

use std::{
    ops::ControlFlow,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use net_afxdp::{LinkEvent, LinkMonitor, Port, PortConfig, Prepared};
use rustix::event::PollFlags;

use crate::{
    net::{Net, ip},
    packet::{PATIENCE, frame, wait},
    traffic::{MODES, config, open, send},
};

const ROUNDS: usize = 15;

/// How long frames are counted.
const PERIOD: Duration = Duration::from_secs(1);

/// The middle of some durations, and the longest.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    let longest = times.last().copied().unwrap_or_default();
    format!("median {middle:?}, longest {longest:?}")
}

#[test]
#[ignore = "prints figures; run by hand"]
fn measure_opening_and_closing() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let config = PortConfig {
            mode: Some(mode),
            ..config(&net.near)
        };
        let (mut opening, mut closing, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let port = Port::open(&config).unwrap();
            opening.push(start.elapsed());
            let start = Instant::now();
            drop(port);
            closing.push(start.elapsed());
            // The kernel frees the queue a while after it was closed.
            let start = Instant::now();
            drop(Port::open(&config).unwrap());
            again.push(start.elapsed());
            std::thread::sleep(Duration::from_millis(300));
        }
        let memory = config.locked_memory() >> 20;
        println!(
            "{mode}: {memory} MiB locked per queue of {} frames",
            config.frames
        );
        println!("{mode}: open {}", summary(opening));
        println!("{mode}: close {}", summary(closing));
        println!("{mode}: open again at once {}", summary(again));
    }
}

#[test]
#[ignore = "prints figures; run by hand"]
fn measure_opening_what_was_prepared() {
    let Some(net) = Net::new() else { return };
    let config = config(&net.near);
    let (mut preparing, mut opening) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut prepared = Prepared::open(&config).unwrap();
        preparing.push(start.elapsed());
        let source = prepared.take_source();
        let start = Instant::now();
        let port = Port::open_from(&config, source).unwrap();
        opening.push(start.elapsed());
        drop((port, prepared));
        std::thread::sleep(Duration::from_millis(300));
    }
    println!("prepare {}", summary(preparing));
    println!("open what was prepared {}", summary(opening));
}

#[test]
#[ignore = "prints figures; run by hand"]
fn measure_noticing_a_lost_interface() {
    let Some(net) = Net::new() else { return };
    let mut noticed = Vec::new();
    let mut deleted = Vec::new();
    for round in 0..ROUNDS {
        ip(&format!(
            "link add rwlost{round} type veth peer name rwpeer{round}"
        ));
        ip(&format!("link set dev rwlost{round} up"));
        let port = Port::open(&config(&format!("rwlost{round}"))).unwrap();
        let mut monitor = LinkMonitor::open(port.interface().index()).unwrap();
        let watcher = std::thread::spawn(move || {
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline {
                match monitor.next_event().unwrap() {
                    Some(LinkEvent::Gone) => return Instant::now(),
                    Some(_) => {}
                    None => wait(monitor.as_fd(), PollFlags::IN),
                }
            }
            panic!("not noticed");
        });
        let start = Instant::now();
        ip(&format!("link del rwlost{round}"));
        deleted.push(start.elapsed());
        noticed.push(watcher.join().unwrap() - start);
    }
    drop(net);
    println!("`ip link del` took {}", summary(deleted));
    println!("noticed, from its start: {}", summary(noticed));
}

#[test]
#[ignore = "prints figures; run by hand"]
fn measure_frames_from_port_to_port_in_one_thread() {
    let Some(net) = Net::new() else { return };
    for (mtu, length) in [(1500, 64), (1500, 1514), (9000, 9014)] {
        ip(&format!("link set dev {} mtu {mtu}", net.near));
        ip(&format!("link set dev {} mtu {mtu}", net.far));
        for mode in MODES {
            let (_near, mut near) = open(&PortConfig {
                mode: Some(mode),
                ..config(&net.near)
            });
            let (_far, mut far) = open(&PortConfig {
                mode: Some(mode),
                ..config(&net.far)
            });
            let sent = frame(1, length);
            let (mut frames, mut bytes) = (0, 0);
            let start = Instant::now();
            while start.elapsed() < PERIOD {
                for _ in 0..near.room().min(64) {
                    send(&mut near, &sent).unwrap();
                }
                near.flush().unwrap();
                frames += far.receive(256, |fragments| {
                    bytes += fragments.iter().map(|it| it.len() as u64).sum::<u64>();
                    ControlFlow::Continue(())
                });
            }
            println!(
                "{length} bytes, {mode}: {} frames/s, {} Mbit/s",
                frames as u64 / PERIOD.as_secs(),
                bytes * 8 / 1_000_000 / PERIOD.as_secs()
            );
        }
    }
}
