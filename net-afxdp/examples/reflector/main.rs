//! Sends every frame that arrives at an interface back to where it came from, its Ethernet
//! addresses swapped, until ctrl-C.
//!
//! `reflector INTERFACE [native|skb] [QUEUES]`
//!
//! One thread per queue. Try it on a veth pair, with a packet generator at the other end.

mod interrupt;

use std::{
    env,
    error::Error,
    io,
    ops::ControlFlow,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use net_afxdp::{AttachMode, Port, PortConfig, Queue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Frames that are handled between two flushes.
const BURST: usize = 64;

/// How long a thread sleeps at most before it looks whether it is to end.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

const USAGE: &str = "usage: reflector INTERFACE [native|skb] [QUEUES]";

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reflector: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let config = arguments()?;
    let mut port = Port::open(&config)?;
    let signals = interrupt::Signals::hold()?;
    let threads: Vec<_> = port
        .take_queues()
        .into_iter()
        .map(|queue| thread::spawn(move || reflect(queue)))
        .collect();
    println!(
        "{}: {} mode, {} queue(s); ctrl-C ends it",
        config.ifname,
        port.mode(),
        threads.len()
    );
    signals.wait()?;
    STOP.store(true, Ordering::Relaxed);
    for thread in threads {
        let queue = thread.join().map_err(|_| "a thread panicked")??;
        println!("queue {}: {:?}", queue.id(), queue.counters());
        println!("queue {}: {:?}", queue.id(), queue.statistics()?);
        println!("queue {}: {:?}", queue.id(), queue.accounting());
    }
    Ok(())
}

fn arguments() -> Result<PortConfig, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let ifname = arguments.next().ok_or(USAGE)?;
    let mut config = PortConfig {
        ifname,
        ..PortConfig::default()
    };
    for argument in arguments {
        match argument.as_str() {
            "native" => config.mode = Some(AttachMode::Native),
            "skb" => config.mode = Some(AttachMode::Skb),
            number => config.queues = number.parse().map_err(|_| USAGE)?,
        }
    }
    Ok(config)
}

/// Serves one queue.
fn reflect(mut queue: Queue) -> io::Result<Queue> {
    // A frame that is received can't be sent without a copy: its memory goes back to the kernel.
    let mut frames: Vec<Vec<u8>> = (0..BURST)
        .map(|_| Vec::with_capacity(queue.max_frame()))
        .collect();
    while !STOP.load(Ordering::Relaxed) {
        let mut slots = frames.iter_mut();
        let budget = queue.room().min(BURST);
        let count = queue.receive(budget, |fragments| {
            let Some(frame) = slots.next() else {
                return ControlFlow::Break(());
            };
            frame.clear();
            fragments
                .iter()
                .for_each(|fragment| frame.extend_from_slice(fragment));
            swap_addresses(frame);
            ControlFlow::Continue(())
        });
        for frame in frames.iter().take(count) {
            // Only frames that are too short for Ethernet are refused: there is room.
            let mut rest = &frame[..];
            let _ = queue.send(frame.len(), |fragment| {
                let (bytes, after) = rest.split_at(fragment.len());
                fragment.copy_from_slice(bytes);
                rest = after;
            });
        }
        match queue.flush() {
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
            result => result?,
        }
        if count == 0 {
            let mut fds = [PollFd::new(&queue, PollFlags::IN)];
            poll(&mut fds, Some(&PAUSE))?;
        }
    }
    Ok(queue)
}

/// Swaps the destination and the source of an Ethernet header.
fn swap_addresses(frame: &mut [u8]) {
    if let Some((destination, rest)) = frame.split_first_chunk_mut::<6>()
        && let Some(source) = rest.first_chunk_mut::<6>()
    {
        std::mem::swap(destination, source);
    }
}
