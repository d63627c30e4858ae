//! CPUs: which to use, and how much of them was used.

use std::{fs, time::Duration};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::BenchError;

/// The CPUs that this process may use: one for what is measured, one for what feeds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpus {
    /// For what is measured.
    pub(crate) measured: usize,
    /// For the generator; the same if there is only one.
    pub(crate) generator: usize,
}

impl Cpus {
    /// The last and the first of those that the affinity mask allows.
    pub(crate) fn choose() -> Result<Self, BenchError> {
        let set = sched_getaffinity(None).map_err(BenchError::system("asking for the CPUs"))?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .collect();
        let (&first, &last) = allowed
            .first()
            .zip(allowed.last())
            .ok_or_else(|| BenchError::Nothing("no CPU may be used".into()))?;
        Ok(Self {
            measured: last,
            generator: first,
        })
    }
}

/// Keeps the calling thread on one CPU.
pub(crate) fn pin(cpu: usize) -> Result<(), BenchError> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(BenchError::system(format!("pinning to CPU {cpu}")))
}

/// CPU time that the living threads of a process have used (`/proc/PID/task/*/schedstat`, first field). Includes what
/// the kernel did for others in their time: a sender's packets are received in the sender's time on a veth pair.
pub(crate) fn used(process: u32) -> Duration {
    used_by(process, |_| true)
}

/// The same of the threads whose names are wanted.
pub(crate) fn used_by(process: u32, wanted: impl Fn(&str) -> bool) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let nanoseconds = threads.into_iter().flatten().flatten().filter_map(|it| {
        let name = fs::read_to_string(it.path().join("comm")).ok()?;
        let text = fs::read_to_string(it.path().join("schedstat")).ok()?;
        let used = text.split_whitespace().next()?.parse::<u64>().ok()?;
        wanted(name.trim_end()).then_some(used)
    });
    Duration::from_nanos(nanoseconds.sum())
}
