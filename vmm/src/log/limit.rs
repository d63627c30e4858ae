//! So many log lines of each line of the source, and no more.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use devices::log::{LeftOut, LogLimit};
use tracing::{Event, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::COUNTERS;

/// How many lines of one kind pass at once: more than a VM has devices, each of which may say the same at the start.
const BURST: u32 = 64;
/// How soon the next one passes then: 8640 in a day at most.
const EVERY: Duration = Duration::from_secs(10);

/// Each place in the source that log lines come from, which are as many as there are, and never more.
type Places = Mutex<HashMap<Identifier, LogLimit>>;

fn places() -> &'static Places {
    static PLACES: OnceLock<Places> = OnceLock::new();
    PLACES.get_or_init(Places::default)
}

/// Whether a line of this kind may pass. What a user asked for always may.
fn pass(metadata: &Metadata<'_>) -> Option<LeftOut> {
    if metadata.target() == COUNTERS {
        return Some(LeftOut(0));
    }
    let mut places = places().lock().unwrap_or_else(PoisonError::into_inner);
    let limit = places.entry(metadata.callsite());
    limit.or_insert_with(|| LogLimit::new(BURST, EVERY)).pass()
}

/// How many lines were left out and not told of yet.
pub(super) fn left_out() -> u64 {
    let places = places().lock().unwrap_or_else(PoisonError::into_inner);
    places.values().map(|limit| limit.left_out().0).sum()
}

/// Formats lines as `F` does, but of each place in the source 64 at once, and then one every ten seconds.
/// How many were left out is said before the next one that passes.
#[derive(Debug)]
pub struct Limited<F>(F);

impl<F> Limited<F> {
    /// Limits what `format` makes.
    pub fn new(format: F) -> Self {
        Self(format)
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
        match pass(event.metadata()) {
            // Nothing is written then.
            None => return Ok(()),
            Some(LeftOut(0)) => {}
            Some(LeftOut(count)) => writeln!(
                writer,
                "{count} log lines like the next one were left out, as there were too many"
            )?,
        }
        self.0.format_event(context, writer, event)
    }
}
