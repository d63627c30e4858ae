//! What a frame costs beside CPU time: kicks, interrupts, calls that wake up the kernel, and all system calls of the I/O
//! thread, under load. These are runs of their own, so that counting slows down nothing that is measured.

use std::{fs, time::Duration};

use ringwire_tests::Wire;

use crate::{
    case::Case,
    contestant::{Bare, Contestant, Line, Offered, Running, reported},
    cpu::Cpus,
    error::BenchError,
    rounds::{Outcome, Sample, Series, Unit},
    syscalls::{SystemCalls, Tracepoint},
};

const PER_THOUSAND: Unit = Unit {
    name: "per 1000 frames",
    less: true,
};

/// Until the guest drives its card, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// The I/O thread of the only card.
const IO_THREAD: &str = "net0";

/// What is counted, in the order of [`Exits`].
const NAMES: [&str; 4] = [
    "kicks",
    "interrupts",
    "wake-up calls",
    "all system calls of the I/O thread",
];

/// Counts of one run, for each frame; `None` where this kernel does not tell.
type Exits = [Option<f64>; NAMES.len()];

/// Runs `bare`, which is Ringwire, `rounds` times, each for `seconds`: one outcome for each of [`NAMES`].
pub(crate) fn count(
    bare: &Bare,
    case: Case,
    rounds: u32,
    seconds: f64,
    cpus: Cpus,
) -> Vec<Outcome> {
    let tracepoint = Tracepoint::find()
        .inspect_err(|error| eprintln!("    system calls are not counted: {error}"))
        .ok();
    let mut all = NAMES.map(|_| Series::new(bare.name()));
    for round in 0..rounds {
        eprintln!("    kicks and calls, {case}, round {}/{rounds}", round + 1);
        let exits = run(bare, case, seconds, cpus, tracepoint);
        let exits = exits.map_err(|error| error.to_string());
        for (index, series) in all.iter_mut().enumerate() {
            match &exits {
                Ok(exits) => {
                    let count = exits.get(index).copied().flatten();
                    series.samples.push(count.map(|it| Sample::of(it * 1e3)));
                }
                Err(error) => series.push(Err(BenchError::Nothing(error.clone()))),
            }
        }
    }
    let named = NAMES.into_iter().zip(all);
    let told = named.filter(|(_, series)| series.failures > 0 || series.values().is_some());
    let outcomes = told.map(|(name, series)| Outcome {
        case: format!("{name}, {case}"),
        unit: PER_THOUSAND,
        series: vec![series],
    });
    outcomes.collect()
}

fn run(
    bare: &Bare,
    case: Case,
    seconds: f64,
    cpus: Cpus,
    tracepoint: Option<Tracepoint>,
) -> Result<Exits, BenchError> {
    let wire = Wire::new();
    let mut command = bare.command(case, &wire, cpus, seconds);
    // It logs its counters when it ends.
    command.arg("-v");
    let mut guest = Running::start(bare.name(), case, command)?;
    let _generator = if case.work.needs_generator() {
        let seconds = (PATIENCE * 2).as_secs_f64();
        let command = Offered::ALL.generator(case, &wire, cpus, seconds);
        Some(Running::start("the generator", case, command)?)
    } else {
        None
    };
    let mut thread = None;
    guest.wait_until(PATIENCE, "no I/O thread", |guest| {
        thread = find_thread(guest.id(), IO_THREAD);
        Ok(thread.is_some())
    })?;
    let mut calls = match thread.zip(tracepoint) {
        Some((thread, tracepoint)) => Some(
            SystemCalls::of(thread, tracepoint)
                .map_err(BenchError::system("counting system calls"))?,
        ),
        None => None,
    };
    guest.wait(PATIENCE)?;
    let calls = calls.as_mut().map(SystemCalls::count).transpose();
    let calls = calls.map_err(BenchError::system("reading the count of system calls"))?;
    let lines = guest.lines();
    let [frames, kicks] = ["packets", "kicks"].map(|name| of_guest(&lines, name));
    let frames = frames.filter(|&it| it > 0.0);
    let frames = frames.ok_or_else(|| guest.failure("the guest reported no frames"))?;
    let interrupts = logged(&lines, "guest, on", "interrupts");
    let wakeups = ["rx_wakeups", "tx_wakeups"].map(|it| logged(&lines, ", pair 0:", it));
    let wakeups = wakeups.into_iter().sum::<Option<f64>>();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let calls = calls.map(|it| it as f64);
    Ok([kicks, interrupts, wakeups, calls].map(|it| it.map(|it| it / frames)))
}

/// The thread of that name.
fn find_thread(process: u32, name: &str) -> Option<libc::pid_t> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    threads.flatten().find_map(|it| {
        let comm = fs::read_to_string(it.path().join("comm")).ok()?;
        let id = it.file_name().to_str()?.parse().ok()?;
        (comm.trim_end() == name).then_some(id)
    })
}

/// From the guest's report.
fn of_guest(lines: &[Line], name: &str) -> Option<f64> {
    lines.iter().find_map(|it| reported(&it.text, name))
}

/// A counter `name=VALUE` in the last line of the log that has `part`.
fn logged(lines: &[Line], part: &str, name: &str) -> Option<f64> {
    let line = lines.iter().rfind(|it| it.text.contains(part))?;
    let mut words = line.text.split_whitespace();
    words.find_map(|it| it.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn counters_are_found_in_the_log() {
        let line = |text: &str| Line {
            at: Instant::now(),
            text: text.into(),
        };
        let lines = [
            line(
                "INFO netdev 'net0': guest, on wire0 in native mode with copy: rx_frames=7 interrupts=2",
            ),
            line("INFO netdev 'net0': wire0, pair 0: rx_wakeups=3 tx_wakeups=50"),
        ];
        assert_eq!(logged(&lines, "guest, on", "interrupts"), Some(2.0));
        assert_eq!(logged(&lines, ", pair 0:", "wakeups"), None);
        assert_eq!(logged(&lines, ", pair 0:", "tx_wakeups"), Some(50.0));
    }
}
