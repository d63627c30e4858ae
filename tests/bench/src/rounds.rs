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

/// A contestant's samples in a case, one a round; `None` where it failed.
#[derive(Debug)]
pub(crate) struct Series {
    /// Its name.
    pub(crate) name: String,
    /// By round.
    pub(crate) samples: Vec<Option<Sample>>,
    /// What went wrong the last time.
    pub(crate) failure: Option<String>,
}

impl Series {
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

    /// Of this one's value divided by the other's, round by round.
    pub(crate) fn ratio_to(&self, other: &Self) -> Option<Spread> {
        let pairs = self.samples.iter().zip(&other.samples);
        Spread::of(pairs.filter_map(|(a, b)| Some(a.as_ref()?.value / b.as_ref()?.value)))
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
    /// No further round begins that would not end within this time, judged by those before; the first always does.
    pub(crate) limit: Duration,
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
    let mut series: Vec<Series> = names
        .iter()
        .map(|name| Series {
            name: name.clone(),
            samples: Vec::new(),
            failure: None,
        })
        .collect();
    let started = Instant::now();
    for round in 0..plan.rounds {
        if started.elapsed() * (round + 1) > plan.limit * round && round > 0 {
            eprintln!("    {case}: the time for more rounds is up");
            break;
        }
        eprint!("    {case}, round {}/{}:", round + 1, plan.rounds);
        for turn in 0..names.len() {
            let index = (round as usize + turn) % names.len();
            let Some(entry) = series.get_mut(index) else {
                continue;
            };
            let given_up = entry.failure.is_some() && entry.samples.iter().all(Option::is_none);
            if given_up {
                entry.samples.push(None);
                continue;
            }
            let sample = measure(index);
            let sample = sample
                .map_err(|error| entry.failure = Some(error.to_string()))
                .ok();
            match sample {
                Some(it) => eprint!(" {} {:.3}", entry.name, it.value),
                None => eprint!(" {} failed", entry.name),
            }
            // Unbuffered streams need none; a pipe may be in between.
            let _ = std::io::stderr().flush();
            entry.samples.push(sample);
        }
        eprintln!(" {}", unit.name);
    }
    eprintln!("    {case}: {:.0} s", started.elapsed().as_secs_f64());
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
            Ok(Sample { value, cpu: None })
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
            Ok(Sample {
                value: 1.0,
                cpu: None,
            })
        });
        assert_eq!(order, [0, 1, 1, 0]);
    }

    #[test]
    fn one_that_cannot_run_is_not_asked_again_and_said() {
        let mut calls = 0;
        let outcome = outcome(5, |index| match index {
            0 => Ok(Sample {
                value: 1.0,
                cpu: None,
            }),
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
        let measure = |_| {
            Ok(Sample {
                value: 1.0,
                cpu: None,
            })
        };
        let outcome = alternate("case".into(), Unit::MPPS, &["a".into()], plan, measure);
        assert_eq!(outcome.series[0].samples.len(), 1);
    }
}
