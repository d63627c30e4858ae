//! Alternating rounds: in each, every contestant runs once, in an order that moves on by one each time. A ratio is of two
//! runs of the same round, so that what changes slowly on the machine cancels out.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use crate::{error::BenchError, stats::Spread};

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// In the unit of the case.
    pub(crate) value: f64,
    /// CPU-seconds that the measured program used in a second.
    pub(crate) cpu: Option<f64>,
    /// Nanoseconds of CPU time that those of its threads used for a frame that move frames.
    pub(crate) io: Option<f64>,
}

impl Sample {
    /// A value, and nothing about CPU time.
    pub(crate) fn of(value: f64) -> Self {
        Self {
            value,
            cpu: None,
            io: None,
        }
    }
}

/// What the values of a case are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its name.
    pub(crate) name: &'static str,
    /// Whether less is better.
    pub(crate) less: bool,
}

impl Unit {
    /// Millions of frames a second.
    pub(crate) const MPPS: Self = Self {
        name: "Mpps",
        less: false,
    };
}

/// A contestant's samples in a case, one a round; `None` where it failed, or did not run.
#[derive(Debug)]
pub(crate) struct Series {
    /// Its name.
    pub(crate) name: String,
    /// By round.
    pub(crate) samples: Vec<Option<Sample>>,
    /// How often it failed.
    pub(crate) failures: usize,
    /// What went wrong the last time.
    pub(crate) failure: Option<String>,
}

impl Series {
    /// Without samples.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            samples: Vec::new(),
            failures: 0,
            failure: None,
        }
    }

    /// Adds what came out of a round.
    pub(crate) fn push(&mut self, result: Result<Sample, BenchError>) {
        self.failures += usize::from(result.is_err());
        self.samples.push(
            result
                .map_err(|error| self.failure = Some(error.to_string()))
                .ok(),
        );
    }

    /// How often it ran.
    pub(crate) fn runs(&self) -> usize {
        self.samples.iter().flatten().count() + self.failures
    }

    /// Of the values.
    pub(crate) fn values(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().flatten().map(|it| it.value))
    }

    /// Of the CPU time a second.
    pub(crate) fn cpu(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().flatten().filter_map(|it| it.cpu))
    }

    /// Of the value for each CPU-second: what counts when CPUs are short.
    pub(crate) fn per_cpu(&self) -> Option<Spread> {
        let samples = self.samples.iter().flatten();
        Spread::of(samples.filter_map(|it| Some(it.value / it.cpu?)))
    }

    /// Of the nanoseconds of I/O threads for a frame.
    pub(crate) fn io(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().flatten().filter_map(|it| it.io))
    }

    /// Of this one's value divided by the other's, round by round.
    pub(crate) fn ratio_to(&self, other: &Self) -> Option<Spread> {
        self.by_rounds(other, |a, b| Some(a.value / b.value))
    }

    /// The same of the frames for each CPU-second of the I/O threads.
    pub(crate) fn io_ratio_to(&self, other: &Self) -> Option<Spread> {
        self.by_rounds(other, |a, b| Some(b.io? / a.io?))
    }

    fn by_rounds(
        &self,
        other: &Self,
        ratio: impl Fn(&Sample, &Sample) -> Option<f64>,
    ) -> Option<Spread> {
        let pairs = self.samples.iter().zip(&other.samples);
        Spread::of(pairs.filter_map(|(a, b)| ratio(a.as_ref()?, b.as_ref()?)))
    }
}

/// A case with all of its samples. The first contestant is the one that the others are compared with.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What was done.
    pub(crate) case: String,
    /// What the values are.
    pub(crate) unit: Unit,
    /// By contestant.
    pub(crate) series: Vec<Series>,
}

/// How often, and how long at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Rounds.
    pub(crate) rounds: u32,
    /// Nothing begins that would not end within this time, judged by what each contestant took before; the first round
    /// always does. One that takes more than twice as long as others gives way to them: it runs as often as there is
    /// time besides theirs.
    pub(crate) limit: Duration,
}

impl Plan {
    /// Whether a contestant that takes `own` each time may run now, with `left` rounds to come, this one included,
    /// `costs` what each of those takes that are in the running, and `spent` what has passed.
    fn allows(&self, own: Duration, left: u32, costs: &[Duration], spent: Duration) -> bool {
        let others: Duration = costs.iter().filter(|&&it| it * 2 < own).sum();
        spent + own + others * left <= self.limit
    }
}

/// A contestant in the running.
struct Runner {
    series: Series,
    /// What it took the last time.
    cost: Duration,
}

impl Runner {
    /// It failed the first time.
    fn has_given_up(&self) -> bool {
        self.series.failures > 0 && self.series.runs() == self.series.failures
    }
}

/// Runs rounds of `measure(contestant)`; progress goes to stderr. A contestant that fails in the first round is
/// left out of the others.
pub(crate) fn alternate(
    case: String,
    unit: Unit,
    names: &[String],
    plan: Plan,
    mut measure: impl FnMut(usize) -> Result<Sample, BenchError>,
) -> Outcome {
    let mut runners: Vec<Runner> = names
        .iter()
        .map(|name| Runner {
            series: Series::new(name.clone()),
            cost: Duration::ZERO,
        })
        .collect();
    let started = Instant::now();
    for round in 0..plan.rounds {
        eprint!("    {case}, round {}/{}:", round + 1, plan.rounds);
        let mut ran = false;
        for turn in 0..names.len() {
            let index = (round as usize + turn) % names.len();
            let running = runners.iter().filter(|it| !it.has_given_up());
            let costs: Vec<Duration> = running.map(|it| it.cost).collect();
            let Some(runner) = runners.get_mut(index) else {
                continue;
            };
            let in_time = plan.allows(runner.cost, plan.rounds - round, &costs, started.elapsed());
            if runner.has_given_up() || round > 0 && !in_time {
                runner.series.samples.push(None);
                continue;
            }
            ran = true;
            let start = Instant::now();
            runner.series.push(measure(index));
            runner.cost = start.elapsed();
            match runner.series.samples.last() {
                Some(Some(it)) => eprint!(" {} {:.3}", runner.series.name, it.value),
                _ => eprint!(" {} failed", runner.series.name),
            }
            // Unbuffered streams need none; a pipe may be in between.
            let _ = std::io::stderr().flush();
        }
        if !ran {
            eprintln!(" the time is up");
            break;
        }
        eprintln!(" {}", unit.name);
    }
    eprintln!("    {case}: {:.0} s", started.elapsed().as_secs_f64());
    let series = runners.into_iter().map(|it| it.series).collect();
    Outcome { case, unit, series }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rounds: u32, measure: impl FnMut(usize) -> Result<Sample, BenchError>) -> Outcome {
        let names = ["a".to_owned(), "b".to_owned()];
        let plan = Plan {
            rounds,
            limit: Duration::MAX / 1000,
        };
        alternate("case".into(), Unit::MPPS, &names, plan, measure)
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // The machine becomes ten times as fast in the second round: the ratio does not notice.
        let mut turn = 0;
        let outcome = outcome(2, |index| {
            turn += 1;
            let speed = if turn > 2 { 10.0 } else { 1.0 };
            let value = if index == 0 { 4.0 } else { 2.0 } * speed;
            Ok(Sample::of(value))
        });
        let [a, b] = &outcome.series[..] else {
            panic!()
        };
        let ratio = a.ratio_to(b).unwrap();
        assert_eq!((ratio.min, ratio.max), (2.0, 2.0));
        assert_eq!(a.values().map(|it| (it.min, it.max)), Some((4.0, 40.0)));
    }

    #[test]
    fn the_order_moves_on() {
        let mut order = Vec::new();
        outcome(2, |index| {
            order.push(index);
            Ok(Sample::of(1.0))
        });
        assert_eq!(order, [0, 1, 1, 0]);
    }

    #[test]
    fn one_that_cannot_run_is_not_asked_again_and_said() {
        let mut calls = 0;
        let outcome = outcome(5, |index| match index {
            0 => Ok(Sample::of(1.0)),
            _ => {
                calls += 1;
                Err(BenchError::Nothing("b".into()))
            }
        });
        assert_eq!(calls, 1);
        assert_eq!(outcome.series[1].samples, [None; 5]);
        assert!(outcome.series[1].failure.is_some());
        assert_eq!(outcome.series[0].ratio_to(&outcome.series[1]), None);
    }

    #[test]
    fn when_the_time_is_up_there_is_one_round() {
        let plan = Plan {
            rounds: 9,
            limit: Duration::ZERO,
        };
        let measure = |_| Ok(Sample::of(1.0));
        let outcome = alternate("case".into(), Unit::MPPS, &["a".into()], plan, measure);
        assert_eq!(outcome.series[0].runs(), 1);
    }

    #[test]
    fn who_takes_long_gives_way() {
        let plan = Plan {
            rounds: 10,
            limit: Duration::from_secs(60),
        };
        let seconds = Duration::from_secs;
        let costs = [seconds(1), seconds(20), seconds(2)];
        // Nine rounds of the others take 27 s.
        assert!(plan.allows(seconds(20), 9, &costs, seconds(13)));
        assert!(!plan.allows(seconds(20), 9, &costs, seconds(14)));
        for own in [1, 2] {
            assert!(plan.allows(seconds(own), 9, &costs, seconds(60 - own)));
            assert!(!plan.allows(seconds(own), 9, &costs, seconds(61 - own)));
        }
    }

    #[test]
    fn ratios_of_io_threads_are_of_frames_for_their_time() {
        let of = |io| {
            let mut series = Series::new("");
            let io = Some(io);
            series.push(Ok(Sample {
                io,
                ..Sample::of(1.0)
            }));
            series
        };
        let ratio = of(500.0).io_ratio_to(&of(400.0)).unwrap();
        assert_eq!(ratio.median, 0.8);
    }
}
