//! Counts the frames that arrive on each queue of an interface, by EtherType, and prints them every
//! second, until ctrl-C or for so many seconds.
//!
//! `counter INTERFACE [QUEUES] [SECONDS]`
//!
//! All queues are served by one thread, which sleeps until a frame arrives. What is received is taken
//! off the wire: the kernel's own stack does not see it.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io,
    ops::ControlFlow,
    process::ExitCode,
    time::{Duration, Instant},
};

use net_afxdp::{LinkEvent, LinkMonitor, Port, PortConfig, Queue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const USAGE: &str = "usage: counter INTERFACE [QUEUES] [SECONDS]";

/// Time between two reports.
const REPORT: Duration = Duration::from_secs(1);

/// Frames and bytes of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    frames: u64,
    bytes: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let config = PortConfig {
        ifname: arguments.next().ok_or(USAGE)?,
        queues: arguments.next().map_or(Ok(1), |it| it.parse())?,
        ..PortConfig::default()
    };
    let seconds: Option<u64> = arguments.next().map(|it| it.parse()).transpose()?;

    let mut port = Port::open(&config)?;
    let mut monitor = LinkMonitor::open(port.interface().index())?;
    let mut queues = port.take_queues();
    println!(
        "{}: {} mode, MTU {}",
        config.ifname,
        port.mode(),
        port.mtu()
    );

    let start = Instant::now();
    let mut next_report = start + REPORT;
    let mut counts = BTreeMap::new();
    loop {
        for queue in &mut queues {
            count(queue, &mut counts);
        }
        while let Some(event) = monitor.next_event()? {
            println!("{}: {event:?}", config.ifname);
            if event == LinkEvent::Gone {
                return Err("the interface is gone".into());
            }
        }
        if Instant::now() >= next_report {
            report(&queues, &counts)?;
            next_report += REPORT;
        }
        if seconds.is_some_and(|seconds| start.elapsed() >= Duration::from_secs(seconds)) {
            return Ok(());
        }
        wait(&queues, &monitor, next_report)?;
    }
}

/// Counts what has arrived on a queue. The bytes of a frame are there inside the closure only.
fn count(queue: &mut Queue, counts: &mut BTreeMap<u16, Count>) {
    queue.receive(256, |fragments| {
        let first = fragments.first().copied().unwrap_or_default();
        if let Some([high, low]) = first.get(12..14) {
            let count = counts.entry(u16::from_be_bytes([*high, *low])).or_default();
            count.frames += 1;
            count.bytes += fragments.iter().map(|it| it.len() as u64).sum::<u64>();
        }
        ControlFlow::Continue(())
    });
}

fn report(queues: &[Queue], counts: &BTreeMap<u16, Count>) -> io::Result<()> {
    for queue in queues {
        let own = queue.counters();
        let lost = queue.statistics()?;
        println!(
            "queue {}: {} frames, {} bytes; lost: {} without memory, {} for other reasons",
            queue.id(),
            own.rx_packets,
            own.rx_bytes,
            lost.rx_fill_ring_empty_descs,
            lost.rx_dropped + lost.rx_ring_full + own.rx_too_long,
        );
    }
    for (ethertype, count) in counts {
        println!(
            "  {ethertype:#06x}: {} frames, {} bytes",
            count.frames, count.bytes
        );
    }
    Ok(())
}

/// Sleeps until a frame arrives, the link changes or a report is due.
fn wait(queues: &[Queue], monitor: &LinkMonitor, until: Instant) -> io::Result<()> {
    let pause = until.saturating_duration_since(Instant::now());
    let pause = Timespec::try_from(pause).map_err(io::Error::other)?;
    let mut fds = vec![PollFd::new(monitor, PollFlags::IN)];
    fds.extend(queues.iter().map(|queue| PollFd::new(queue, PollFlags::IN)));
    match poll(&mut fds, Some(&pause)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
