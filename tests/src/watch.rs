//! What a running `ringwire` costs, what it says, and what its guest sees of the link.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::guest::{Guest, PATIENCE, by_pair};

impl Guest {
    /// Waits until the guest's card has a carrier, or has none.
    ///
    /// # Panics
    /// When it does not come to that within half a minute.
    pub fn wait_for_link(&mut self, up: bool) {
        let is = format!("[ $(cat /sys/class/net/eth0/carrier) = {} ]", u8::from(up));
        self.ok(&format!(
            "for i in $(seq 300); do {is} && break; usleep 100000; done; {is}"
        ));
    }

    /// Waits until `ringwire` has said something that contains `text`.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(
                Instant::now() < deadline,
                "'{text}' is not in the log: {}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Names of the threads of `ringwire`, with the CPU time that each has used.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn threads(&self) -> Vec<(String, Duration)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).expect("it is running");
        let threads = tasks.flatten().filter_map(|task| {
            // A thread may end meanwhile.
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let on_cpu = times.split_whitespace().next()?.parse().ok()?;
            Some((name.trim_end().to_owned(), Duration::from_nanos(on_cpu)))
        });
        threads.collect()
    }

    /// CPU time that all threads but those of the vCPUs have used.
    #[must_use]
    pub fn own_cpu_time(&self) -> Duration {
        let threads = self.threads().into_iter();
        let own = threads.filter(|(name, _)| !name.starts_with("vcpu"));
        own.map(|(_, time)| time).sum()
    }

    /// All threads but those of the vCPUs together use less than half a CPU in the next two seconds: nobody spins.
    ///
    /// # Panics
    /// When they use more.
    pub fn assert_idle(&self, when: &str) {
        let (start, before) = (Instant::now(), self.own_cpu_time());
        thread::sleep(Duration::from_secs(2));
        let used = self.own_cpu_time().saturating_sub(before);
        let window = start.elapsed();
        println!("{when}: {used:?} of CPU time in {window:?}");
        assert!(
            used < window / 2,
            "{when}: {used:?} of CPU time in {window:?}: {:?}",
            self.threads()
        );
    }

    /// Memory of `ringwire` that is resident, the guest's included, in KiB.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Memory of `ringwire` that is its own, in KiB: heap, stacks and frames, not the guest's, which is shared memory.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn own_memory(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("it is running");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("the kernel tells")
    }
}

/// Every frame of every queue pair is somewhere, says the log of a `ringwire` that has ended.
///
/// # Panics
/// When one is not, or nothing was said.
pub fn assert_frames_add_up(log: &str) {
    let total = by_pair(log, "frames_total");
    let mut sums = vec![0; total.len()];
    for place in ["frames_free", "frames_fill", "frames_rx", "frames_tx"] {
        for (sum, count) in sums.iter_mut().zip(by_pair(log, place)) {
            *sum += count;
        }
    }
    assert!(!total.is_empty() && sums == total, "frames: {log}");
    assert!(!log.contains("went astray"), "{log}");
}
