//! `make soak`: hostile guests under `ringwire` while their interfaces, their far ends and their processes come and go.
//!
//! Two VMs on this machine's KVM, each on a veth pair in namespaces of its own, run the hostile guest of `tests/guests`
//! at random for ever: after every attack frames go to the far end and come back, and both ends check every byte.
//! Meanwhile something happens at random to one or the other (`event`). One process lasts from start to end, so that a
//! leak shows; the other one is ended, killed, or loses its interface, and another takes its place. After each
//! event frames must come through again. It ends at the first thing that is wrong, with status 1 and what ringwire said.

mod event;
mod problem;
mod random;
mod reflector;
mod station;
mod table;
mod vm;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;

use event::Event;
use problem::Outcome;
use random::Random;
use station::Station;
use vm::Programs;

/// Hostile guests, restless interfaces, at random. Needs root and /dev/kvm.
#[derive(Debug, Parser)]
struct Options {
    /// How long, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1200)]
    seconds: u64,
    /// What is random is the same for the same seed, but for the time that things take; without it, of the clock
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Seconds between two lines of the table
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    period: u64,
    /// The ringwire program
    #[arg(long, value_name = "FILE")]
    ringwire: PathBuf,
    /// The bare guest `hostile` of tests/guests
    #[arg(long, value_name = "FILE")]
    guest: PathBuf,
    /// Say each event as it comes
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = options
        .seed
        .unwrap_or_else(|| clock().map_or(1, |time| time.as_secs()));
    println!("seed {seed}, {} s\n", options.seconds);
    match soak(&options, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("soak: with seed {seed}: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn soak(options: &Options, seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    let programs = Programs {
        ringwire: options.ringwire.clone(),
        guest: options.guest.clone(),
    };
    let lasting = Station::start(&programs, ",queues=2", random.next())?;
    let other = Station::start(&programs, "", random.next())?;
    let mut stations = [lasting, other];
    let (start, length) = (Instant::now(), Duration::from_secs(options.seconds));
    let period = Duration::from_secs(options.period.max(1));
    let (mut next_line, mut events) = (period, 0);
    println!("{}", table::head());
    while start.elapsed() < length {
        let which = random.one_of([0, 1]);
        let event = Event::random(&mut random, which == 0);
        if options.verbose {
            let time = start.elapsed();
            println!("{time:?}: {event:?} at VM {which}");
        }
        let [lasting, other] = &mut stations;
        let (station, bystander) = if which == 0 {
            (lasting, other)
        } else {
            (other, lasting)
        };
        event.happen(station, &mut random)?;
        bystander.watch(Duration::ZERO)?;
        events += 1;
        if start.elapsed() >= next_line {
            next_line = start.elapsed() + period;
            println!("{}", table::line(start.elapsed(), events, &stations));
            for station in &mut stations {
                station.costs.end_period()?;
            }
        }
    }
    for station in &mut stations {
        station.end()?;
    }
    println!("{}", table::line(start.elapsed(), events, &stations));
    Ok(())
}
