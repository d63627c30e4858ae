//! `make soak`: guests under `ringwire` while their interfaces, their far ends and their processes come and go.
//!
//! Several VMs on this machine's KVM, each on a veth pair in namespaces of its own. Bare ones run the hostile guest of
//! `tests/guests` at random for ever: after every attack frames go to the far end and come back, and both ends check every
//! byte (`bare`). Linux ones, where KVM boots Linux, have flows of iperf3 and of `wirecheck`, and change their queue pairs,
//! their rings and their drivers meanwhile (`linux`). To each of them things happen at random (`event`), in a thread of its
//! own. The first of each kind is one process from start to end, so that a leak shows; the others are ended, killed, switched
//! off, or lose their interface, and another takes their place, with other options (`setting`). After each event frames
//! must come through again. It ends at the first thing that is wrong, with status 1 and what ringwire said; on a signal
//! with 128 + its number, all ends checked as ever.

mod bare;
mod costs;
mod end;
mod event;
mod link;
mod linux;
mod plan;
mod problem;
mod process;
mod random;
mod resident;
mod setting;
mod station;
mod table;

use std::{
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use ringwire_tests::{Card, Wire};

use bare::Bare;
use link::Link;
use linux::Linux;
use plan::{Place, Plan};
use problem::{Outcome, Problem, wrong};
use resident::Programs;

/// Hostile and busy guests, restless interfaces, at random. Needs root and /dev/kvm.
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
    /// Hostile bare guests; the first one is one process from start to end
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    bare: u32,
    /// Linux guests, the same; KVM must boot Linux, and the variables of build/system-tests.env be set
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    linux: u32,
    /// Two more of those on the lab's cards with zero-copy: one process from start to end on igb, others on virtio-net
    #[arg(long)]
    cards: bool,
    /// The ringwire program
    #[arg(long, value_name = "FILE")]
    ringwire: PathBuf,
    /// The bare guest `hostile` of tests/guests
    #[arg(long, value_name = "FILE")]
    guest: PathBuf,
    /// Say each event as it begins, with the options of its VM, and as it is over
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
        Ok(()) => end::by_signal().map_or(ExitCode::SUCCESS, |it| ExitCode::from(128 + it)),
        Err(problem) => {
            eprintln!("soak: with seed {seed}: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn soak(options: &Options, seed: u64) -> Outcome {
    end::on_signals().map_err(Problem::system("take signals"))?;
    let plan = Plan {
        programs: Programs {
            ringwire: options.ringwire.clone(),
            guest: options.guest.clone(),
            metadata: takes_metadata(&options.ringwire),
        },
        seed,
        start: Instant::now(),
        length: Duration::from_secs(options.seconds),
        period: Duration::from_secs(options.period.max(1)),
        verbose: options.verbose,
    };
    println!("{}", table::head());
    let verdicts = stations(&plan, &places(options))?;
    println!();
    for verdict in verdicts {
        println!("verdict: {verdict}");
    }
    let stood_still = linux::stood_still();
    if stood_still > 0 {
        println!(
            "Linux guests that stood still as they booted, each with another in its place: {stood_still}"
        );
    }
    if let Some(signal) = end::by_signal() {
        println!("ended early, by signal {signal}");
    }
    Ok(())
}

/// Where all of them live.
fn places(options: &Options) -> Vec<Place> {
    let some = |linux, count| (0..count).map(move |it| (linux, Link::Veth, it == 0));
    let cards = [Card::Igb, Card::VirtioNet].map(|it| (true, Link::Cards(it), it == Card::Igb));
    let cards = cards.into_iter().filter(|_| options.cards);
    let all = some(false, options.bare)
        .chain(some(true, options.linux))
        .chain(cards);
    let numbered = (0..).zip(all).map(|(number, (linux, link, lasts))| Place {
        number,
        linux,
        link,
        lasts,
    });
    numbered.collect()
}

/// All stations at once, to their ends; the verdicts on those that last.
fn stations(plan: &Plan, places: &[Place]) -> Outcome<Vec<String>> {
    let soak = |place: Place| {
        if place.linux {
            plan.soak::<Linux>(place)
        } else {
            plan.soak::<Bare>(place)
        }
    };
    let outcomes: Vec<_> = thread::scope(|scope| {
        // Collected first: all are to be started before one is waited for.
        let all: Vec<_> = places
            .iter()
            .map(|&it| scope.spawn(move || soak(it)))
            .collect();
        all.into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect()
    });
    let mut verdicts = Vec::new();
    let mut problems = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(Ok(verdict)) => verdicts.extend(verdict),
            Ok(Err(problem)) => problems.push(problem.to_string()),
            Err(_) => problems.push("a panic, see above".to_owned()),
        }
    }
    if problems.is_empty() {
        return Ok(verdicts);
    }
    wrong(problems.join("\nand "))
}

/// Whether this kernel takes metadata before frames, which `ringwire check` knows.
fn takes_metadata(ringwire: &Path) -> bool {
    let wire = Wire::new();
    let netdev = format!("af-xdp,ifname={},tx-metadata=on", Wire::IFNAME);
    let mut command = wire.vmm_command(ringwire);
    let command = command.args(["check", &netdev]).stdin(Stdio::null());
    let output = command.output();
    output.is_ok_and(|it| it.status.success())
}
