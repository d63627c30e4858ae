//! One station, from its start to its end.

use std::time::{Duration, Instant};

use crate::{
    end,
    event::Event,
    link::Link,
    problem::{Outcome, Problem},
    process::Ending,
    random::Random,
    resident::{Programs, Resident},
    setting::Setting,
    station::Station,
    table,
};

/// What is the same for all.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) programs: Programs,
    pub(crate) seed: u64,
    pub(crate) start: Instant,
    pub(crate) length: Duration,
    /// Between two lines of the table.
    pub(crate) period: Duration,
    /// Every event is told.
    pub(crate) verbose: bool,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) number: u32,
    /// A Linux guest, or else a bare one.
    pub(crate) linux: bool,
    pub(crate) link: Link,
    /// Its process lives from start to end.
    pub(crate) lasts: bool,
}

impl Plan {
    /// Lets things happen to a station until the time is up; the verdict if its process lasts.
    ///
    /// # Errors
    /// The first thing that is wrong; then all others are to end, too.
    pub(crate) fn soak<R: Resident>(&self, place: Place) -> Outcome<Option<String>> {
        // Whoever goes on alone would hide it; a panic, too.
        let asks = AskAtEnd;
        let outcome = self.run::<R>(place);
        if outcome.is_ok() {
            std::mem::forget(asks);
        }
        outcome.map_err(|error| Problem::Wrong(format!("{} {}: {error}", R::NAME, place.number)))
    }

    fn run<R: Resident>(&self, place: Place) -> Outcome<Option<String>> {
        let mut random = Random::new(self.seed.wrapping_add(place.number.into()));
        let setting = if place.lasts {
            Setting::lasting(place.link)
        } else {
            Setting::random(&mut random, place.link, self.programs.metadata)
        };
        let mut station = Station::<R>::start(&self.programs, setting, &mut random)?;
        let (mut next_line, mut events) = (self.period, 0);
        while !end::is_asked() && self.start.elapsed() < self.length {
            let event = Event::random(&mut random, place.lasts);
            let before = self.start.elapsed();
            self.tell::<R>(place, &format!("{event:?}, {:?}", station.setting));
            let name = event.happen(&mut station, &mut random)?;
            let took = self.start.elapsed().saturating_sub(before);
            self.tell::<R>(place, &format!("{name}, which took {took:.1?}"));
            events += 1;
            let now = self.start.elapsed();
            if now >= next_line {
                next_line = now + self.period;
                station.costs.end_period()?;
                println!("{}", table::line(now, place, events, &station));
            }
        }
        let frames = station.setting.frames;
        station.end(Ending::Terminate)?;
        let now = self.start.elapsed();
        println!("{}", table::line(now, place, events, &station));
        Ok(place.lasts.then(|| {
            let same = match station.costs.comparison() {
                Some(text) => format!("{text}: constant"),
                None => "memory, descriptors, threads: too short to tell, it takes three periods"
                    .to_owned(),
            };
            format!(
                "{} {}: {same}; UMEM frames {frames} at first, {frames} accounted for at the end: constant",
                R::NAME,
                place.number
            )
        }))
    }

    fn tell<R: Resident>(&self, place: Place, what: &str) {
        if self.verbose {
            let now = self.start.elapsed();
            println!("{now:.1?}: {} {}: {what}", R::NAME, place.number);
        }
    }
}

/// Asks all to end when dropped.
struct AskAtEnd;

impl Drop for AskAtEnd {
    fn drop(&mut self) {
        end::ask();
    }
}
