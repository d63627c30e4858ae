//! Which CPUs the threads of a machine run on, and who makes them.

use std::{collections::BTreeMap, io, sync::Arc, thread::JoinHandle};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use vmm_sys_util::signal::block_signal;

use crate::{
    threads::{NewThread, ThreadKind, ThreadMaker},
    virtio::quiet::Quiet,
};

/// Places threads on CPUs by their names. The default one leaves every thread where it was made, by the thread
/// that wants it.
///
/// Linux gives a new thread the CPUs of the thread that makes it, and a device's threads are made by
/// the vCPU whose driver is ready. So as soon as any thread is pinned, every other one has to be
/// [placed](Self::enter) too, lest an io-thread share the vCPU's one CPU.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    places: Option<Arc<Places>>,
    maker: Option<Arc<dyn ThreadMaker>>,
}

#[derive(Debug)]
struct Places {
    pins: BTreeMap<String, usize>,
    /// For threads that are not pinned.
    others: CpuSet,
    /// How often the system refused. Each reset by a guest makes its device's threads anew.
    refusals: Quiet,
}

/// The CPUs that the calling thread may use, in order.
///
/// # Errors
/// The system's.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    let cpus = 0..CpuSet::MAX_CPU;
    Ok(cpus.filter(|&cpu| set.is_set(cpu)).collect())
}

impl Placement {
    /// Pins each of these threads, by name, to one CPU, and lets all others use the CPUs that the calling
    /// thread may use now. No pins: leaves every thread where it was made.
    ///
    /// # Errors
    /// The system does not tell the CPUs of this thread.
    pub fn new(pins: impl IntoIterator<Item = (String, usize)>) -> io::Result<Self> {
        let pins: BTreeMap<_, _> = pins.into_iter().collect();
        if pins.is_empty() {
            return Ok(Self::default());
        }
        let others = sched_getaffinity(None)?;
        Ok(Self {
            places: Some(Arc::new(Places {
                pins,
                others,
                refusals: Quiet::default(),
            })),
            maker: None,
        })
    }

    /// The same with threads that `maker` makes.
    #[must_use]
    pub fn made_by(mut self, maker: Arc<dyn ThreadMaker>) -> Self {
        self.maker = Some(maker);
        self
    }

    /// Starts a device's thread where it belongs. A `name` from a user may hold anything: NULs are left out.
    pub(crate) fn spawn(
        &self,
        kind: ThreadKind,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let work = || {
            // A file that may not get longer (RLIMIT_FSIZE) is an error of the write (EFBIG), and not the end of
            // the process. Fails only if it is so already.
            let _ = block_signal(libc::SIGXFSZ);
            work();
        };
        let thread = NewThread {
            kind,
            name: name.replace('\0', ""),
            placement: self.clone(),
            work: Box::new(work),
        };
        match &self.maker {
            Some(maker) => maker.make(thread),
            None => thread.start(),
        }
    }

    /// Moves the calling thread to where the thread `name` belongs. If the system refuses that (a
    /// cpuset that changed since), the thread runs where it is, and the log says so.
    pub fn enter(&self, name: &str) {
        let Some(places) = &self.places else {
            return;
        };
        let cpus = match places.pins.get(name) {
            Some(&cpu) if cpu < CpuSet::MAX_CPU => {
                let mut one = CpuSet::new();
                one.set(cpu);
                one
            }
            _ => places.others,
        };
        let Err(error) = sched_setaffinity(None, &cpus) else {
            return;
        };
        if let Some(number) = places.refusals.count() {
            tracing::warn!(
                "the thread {name} could not be moved to its CPUs, and runs on those of the thread that \
                 made it (message {number}): {}",
                io::Error::from(error)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;

    /// The CPUs of a new thread `name`, made by one that is pinned as `maker`.
    fn cpus(placement: &Placement, maker: &str, name: &str) -> Vec<usize> {
        thread::scope(|scope| {
            let work = || {
                placement.enter(maker);
                let inner = scope.spawn(|| {
                    placement.enter(name);
                    allowed_cpus().unwrap()
                });
                inner.join().unwrap()
            };
            scope.spawn(work).join().unwrap()
        })
    }

    #[test]
    fn threads_are_where_they_belong_whoever_makes_them() {
        let all = allowed_cpus().unwrap();
        let (first, last) = (all[0], *all.last().unwrap());
        let pins = [("vcpu0".to_owned(), first), ("net0".to_owned(), last)];
        let placement = Placement::new(pins).unwrap();
        assert_eq!(cpus(&placement, "vcpu0", "net0"), [last]);
        assert_eq!(cpus(&placement, "net0", "vcpu0"), [first]);
        assert_eq!(cpus(&placement, "vcpu0", "net0.1"), all, "not inherited");
        assert_eq!(allowed_cpus().unwrap(), all, "this thread is not concerned");
        let none = Placement::new([]).unwrap();
        assert!(none.places.is_none());
        assert_eq!(cpus(&none, "vcpu0", "net0"), all);
    }

    /// Counts log lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<AtomicUsize>);

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    /// Every reset of a device makes its threads anew, and a CPU may be offline or out of the cpuset by then.
    #[test]
    fn a_cpu_that_is_gone_is_told_a_few_times_however_often_the_guest_resets() {
        let placement = Placement::new([("a".to_owned(), CpuSet::MAX_CPU - 1)]).unwrap();
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || {
            (0..1024).for_each(|_| placement.enter("a"));
        });
        assert_eq!(lines.0.load(Ordering::Relaxed), 11);
    }

    #[test]
    fn a_cpu_that_is_not_there_changes_nothing() {
        let all = allowed_cpus().unwrap();
        for cpu in [CpuSet::MAX_CPU - 1, CpuSet::MAX_CPU, usize::MAX] {
            let placement = Placement::new([("a".to_owned(), cpu)]).unwrap();
            assert_eq!(cpus(&placement, "b", "a"), all, "{cpu}");
        }
    }
}
