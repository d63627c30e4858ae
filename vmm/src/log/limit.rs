//! So many log lines of each line of the source, and no more.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use devices::log::{LeftOut, LogLimit};
use tracing::{Event, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::COUNTERS;

/// How many lines of one kind pass at once: more than a VM has queue pairs, each of which has a line at the end.
const BURST: u32 = 512;
/// How soon the next one passes then: 8640 in a day at most.
const EVERY: Duration = Duration::from_secs(10);

/// Each place in the source that log lines come from, which are as many as there are, and never more.
#[derive(Debug)]
struct Places {
    limits: Mutex<HashMap<Identifier, LogLimit>>,
    every: Duration,
}

impl Places {
    fn new(every: Duration) -> Self {
        let limits = Mutex::default();
        Self { limits, every }
    }

    fn limits(&self) -> MutexGuard<'_, HashMap<Identifier, LogLimit>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line of this kind may pass; if so, how many before it did not. What a user asked for always may.
    fn pass(&self, metadata: &Metadata<'_>) -> Option<u64> {
        if metadata.target() == COUNTERS {
            return Some(0);
        }
        let mut limits = self.limits();
        let limit = limits.entry(metadata.callsite());
        limit
            .or_insert_with(|| LogLimit::new(BURST, self.every))
            .pass()
            .map(|LeftOut { count, .. }| count)
    }

    /// How many lines were left out and not told of yet.
    fn left_out(&self) -> u64 {
        let limits = self.limits();
        limits.values().map(LogLimit::left_out).sum()
    }
}

/// The process's.
fn places() -> &'static Places {
    static PLACES: OnceLock<Places> = OnceLock::new();
    PLACES.get_or_init(|| Places::new(EVERY))
}

/// How many lines were left out and not told of yet.
pub(super) fn left_out() -> u64 {
    places().left_out()
}

/// Formats lines as `F` does, but of each place in the source 512 at once, and then one every ten seconds.
/// How many were left out is said before the next one that passes.
#[derive(Debug)]
pub struct Limited<F> {
    format: F,
    places: &'static Places,
}

impl<F> Limited<F> {
    /// Limits what `format` makes.
    pub fn new(format: F) -> Self {
        let places = places();
        Self { format, places }
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.places.pass(event.metadata()) {
            // Nothing is written then.
            None => return Ok(()),
            Some(0) => {}
            Some(count) => writeln!(
                writer,
                "{count} log lines like the next one were left out, as there were too many"
            )?,
        }
        self.format.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::Arc,
        thread,
    };

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Write for Text {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(data)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `work` runs, and how many lines were left out.
    fn written(every: Duration, work: impl FnOnce()) -> (String, u64) {
        let text = Text::default();
        let writer = text.clone();
        let places: &'static Places = Box::leak(Box::new(Places::new(every)));
        let format = tracing_subscriber::fmt::format();
        let lines = tracing_subscriber::fmt::layer()
            .event_format(Limited { format, places })
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        (text, places.left_out())
    }

    #[test]
    fn of_each_place_in_the_source_so_many_lines_pass() {
        let (text, left_out) = written(Duration::from_secs(3600), || {
            for _ in 0..2000 {
                tracing::warn!("one place");
                tracing::info!("another place");
                tracing::info!(target: COUNTERS, "asked for");
            }
            tracing::error!("a third one");
        });
        let count = |words| text.matches(words).count();
        assert_eq!((count("one place"), count("another place")), (512, 512));
        assert_eq!((count("asked for"), count("a third one")), (2000, 1));
        assert_eq!(left_out, 2 * (2000 - 512));
    }

    #[test]
    fn the_next_line_that_passes_says_how_many_did_not() {
        let (text, left_out) = written(Duration::from_millis(500), || {
            for turn in 0..=600 {
                if turn == 600 {
                    thread::sleep(Duration::from_millis(501));
                }
                tracing::warn!("turn {turn}");
            }
        });
        assert_eq!(left_out, 0);
        let (_, end) = text.split_once("turn 511\n").unwrap();
        let told = " log lines like the next one were left out, as there were too many\n";
        assert!(end.contains(told) && end.ends_with("turn 600\n"), "{end}");
    }
}
