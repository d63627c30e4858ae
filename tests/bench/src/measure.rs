//! One measurement of frames a second: both ends are started, and when traffic flows evenly, counted for a while.

use std::{
    fs::File,
    io::{Read, Seek},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ringwire_tests::Wire;

use crate::{
    case::{Case, Work},
    contestant::{Contestant, Offered, Running},
    cpu::{self, Cpus},
    error::BenchError,
    rounds::Sample,
};

/// Until the first frames flow: programs start, attach, bind.
const START: Duration = Duration::from_secs(20);

/// From then until it counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// Frames that are traffic, not a neighbour's search for routers.
const FLOWING: u64 = 500;

/// Where and how long.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    /// The wire; the contestant has its near end.
    pub(crate) wire: &'a Wire,
    /// Who runs where.
    pub(crate) cpus: Cpus,
    /// How long is counted.
    pub(crate) window: Duration,
    /// What comes from the far end, where something has to.
    pub(crate) offered: Offered,
}

impl Bench<'_> {
    /// Runs `contestant` once. What it sends is counted at the far end by the kernel, for everybody alike; what it
    /// receives it must tell itself.
    pub(crate) fn run(
        &self,
        contestant: &dyn Contestant,
        case: Case,
    ) -> Result<Sample, BenchError> {
        let at_its_end = case.work == Work::RxDrop && contestant.reports_at_its_end();
        let seconds = if at_its_end {
            (WARM_UP + self.window).as_secs_f64()
        } else {
            (START + WARM_UP + self.window).as_secs_f64()
        };
        let mut far = Received::at_far_end(self.wire)?;
        let command = contestant.command(case, self.wire, self.cpus, seconds);
        let mut measured = Running::start(contestant.name(), case, command)?;
        let mut generator = case
            .work
            .needs_generator()
            .then(|| self.generator(case))
            .map(|command| Running::start("the generator", case, command))
            .transpose()?;
        let start = far.frames()?;
        measured.wait_until(START, "no traffic", |measured| {
            generator.as_mut().map_or(Ok(()), Running::check)?;
            Ok(match case.work {
                Work::RxDrop => contestant.flows(&measured.lines()),
                Work::TxPush | Work::L2Fwd => far.frames()? > start + FLOWING,
            })
        })?;
        thread::sleep(WARM_UP);
        let moment = |far: &mut Received, measured: &Running| {
            let moves = |thread: &str| contestant.moves_frames(thread);
            Moment::now(far, measured.id(), moves)
        };
        let before = moment(&mut far, &measured)?;
        thread::sleep(self.window);
        if case.work == Work::RxDrop && !at_its_end {
            wait_for_report(contestant, &measured, before.at);
        }
        let after = moment(&mut far, &measured)?;
        if at_its_end {
            measured.wait(START)?;
        } else {
            measured.check()?;
        }
        let frames = match case.work {
            Work::RxDrop => contestant.received(&measured.lines(), before.at, after.at),
            Work::TxPush | Work::L2Fwd => Some(before.sent_until(&after)),
        };
        let frames = frames.ok_or_else(|| measured.failure("did not tell what it received"))?;
        Ok(before.sample(&after, frames))
    }

    /// It ends by itself long after all else has.
    fn generator(&self, case: Case) -> Command {
        let seconds = (START * 3 + self.window).as_secs_f64();
        self.offered.generator(case, self.wire, self.cpus, seconds)
    }
}

/// Some tell only now and then what they receive.
fn wait_for_report(contestant: &dyn Contestant, measured: &Running, from: Instant) {
    let told = || {
        let lines = measured.lines();
        contestant.received(&lines, from, Instant::now()).is_some()
    };
    while !told() && from.elapsed() < START / 2 {
        thread::sleep(Duration::from_millis(20));
    }
}

/// What is read at the beginning and at the end of a window.
struct Moment {
    at: Instant,
    frames: u64,
    /// CPU time of the whole program, and of the threads that move frames.
    cpu: Duration,
    io: Duration,
}

impl Moment {
    fn now(
        far: &mut Received,
        process: u32,
        moves: impl Fn(&str) -> bool,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            at: Instant::now(),
            frames: far.frames()?,
            cpu: cpu::used(process),
            io: cpu::used_by(process, moves),
        })
    }

    /// Frames a second that came to the far end until `later`.
    fn sent_until(&self, later: &Self) -> f64 {
        per_second(later.frames - self.frames, self.seconds_until(later))
    }

    fn seconds_until(&self, later: &Self) -> f64 {
        (later.at - self.at).as_secs_f64()
    }

    /// Of the time until `later`, in which `frames` a second moved.
    fn sample(&self, later: &Self, frames: f64) -> Sample {
        let seconds = self.seconds_until(later);
        let part = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() / seconds;
        Sample {
            value: frames / 1e6,
            cpu: Some(part(self.cpu, later.cpu)),
            io: Some(part(self.io, later.io) / frames * 1e9),
        }
    }
}

/// The kernel's count of the frames that came out at the far end of the wire.
struct Received(File);

impl Received {
    fn at_far_end(wire: &Wire) -> Result<Self, BenchError> {
        // The file belongs to the namespace of the thread that opens it.
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    wire.enter(false);
                    File::open("/proc/thread-self/net/dev")
                })
                .join()
                .map_err(|_| BenchError::Nothing("the far end can't be entered".into()))
        })?
        .map(Self)
        .map_err(BenchError::system("opening /proc/thread-self/net/dev"))
    }

    /// So far.
    fn frames(&mut self) -> Result<u64, BenchError> {
        let mut text = String::new();
        self.0
            .rewind()
            .and_then(|()| self.0.read_to_string(&mut text))
            .map_err(BenchError::system("reading /proc/thread-self/net/dev"))?;
        received(&text, Wire::PEER_IFNAME)
            .ok_or_else(|| BenchError::Nothing(format!("{} is gone", Wire::PEER_IFNAME)))
    }
}

/// From a line "  NAME: BYTES PACKETS ...".
fn received(text: &str, ifname: &str) -> Option<u64> {
    let mut words = text.lines().map(|it| it.split_whitespace());
    let mut line = words.find(|it| {
        let name = it.clone().next().and_then(|name| name.strip_suffix(':'));
        name == Some(ifname)
    })?;
    line.nth(2)?.parse().ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "frames of some seconds are far below 2^52"
)]
fn per_second(frames: u64, seconds: f64) -> f64 {
    frames as f64 / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_found_by_its_whole_name() {
        let text = "Inter-|   Receive\n face |bytes packets errs\n    lo:  1 2 0\n mypeer0: 5 6 0\n peer0: 3000 42 0\n";
        assert_eq!(received(text, "peer0"), Some(42));
        assert_eq!(received(text, "eth0"), None);
    }
}
