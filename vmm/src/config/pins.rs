//! Which threads run on which CPUs.

use devices::placement::allowed_cpus;

use super::VmConfig;

/// A thread that is to run on one CPU of the host only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinConfig {
    /// Its name: `main`, `console` (both of its threads), `vcpuN`, `rng0`, `blkN`, and for a netdev its id, `ID.K` for its further
    /// queue pairs, `ID.ctrl` for its control queue.
    pub thread: String,
    /// Number of the CPU.
    pub cpu: usize,
}

/// Why threads can't be pinned like that.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// no such thread
    #[error("there is no thread '{thread}' to pin; this guest has: {known}")]
    Thread {
        /// What was asked for.
        thread: String,
        /// All that can be pinned.
        known: String,
    },
    /// one thread, two CPUs
    #[error("the thread '{0}' is pinned twice")]
    Twice(String),
    /// not one of ours
    #[error(
        "'{thread}' can't run on CPU {cpu}: ringwire may use the CPUs {allowed} (`taskset -p` and the cpuset of its cgroup decide)"
    )]
    Cpu {
        /// The thread.
        thread: String,
        /// What was asked for.
        cpu: usize,
        /// What there is, as `taskset -c` writes it.
        allowed: String,
    },
}

/// The threads that a VM can have.
fn threads(config: &VmConfig) -> Vec<String> {
    let mut names = vec!["main".to_owned(), "console".to_owned()];
    names.extend((0..config.cpus).map(|vcpu| format!("vcpu{vcpu}")));
    names.push("rng0".to_owned());
    names.extend((0..config.disks.len()).map(|disk| format!("blk{disk}")));
    for netdev in &config.netdevs {
        let id = &netdev.id;
        names.push(id.clone());
        names.extend((1..netdev.port.queues).map(|pair| format!("{id}.{pair}")));
        names.push(format!("{id}.ctrl"));
    }
    names
}

/// Checks all pins of a VM.
///
/// # Errors
/// The first that is not possible.
pub(super) fn check(config: &VmConfig) -> Result<(), PinError> {
    if config.pins.is_empty() {
        return Ok(());
    }
    // Not known: let the kernel decide.
    check_on(config, allowed_cpus().ok().as_deref())
}

fn check_on(config: &VmConfig, allowed: Option<&[usize]>) -> Result<(), PinError> {
    let known = threads(config);
    for (i, PinConfig { thread, cpu }) in config.pins.iter().enumerate() {
        if !known.contains(thread) {
            return Err(PinError::Thread {
                thread: thread.clone(),
                known: known.join(", "),
            });
        }
        if config.pins.iter().take(i).any(|pin| pin.thread == *thread) {
            return Err(PinError::Twice(thread.clone()));
        }
        if let Some(allowed) = allowed.filter(|allowed| !allowed.contains(cpu)) {
            return Err(PinError::Cpu {
                thread: thread.clone(),
                cpu: *cpu,
                allowed: list(allowed),
            });
        }
    }
    Ok(())
}

/// Numbers in order as `0-3,8`.
fn list(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        one => one.iter().map(ToString::to_string).collect(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DiskConfig, NetdevConfig};

    fn config(pins: &[(&str, usize)]) -> VmConfig {
        let mut config = VmConfig::new("k");
        config.cpus = 2;
        config.disks.push(DiskConfig {
            path: "d".into(),
            readonly: true,
            serial: None,
        });
        config.netdevs.push(NetdevConfig::new("lan", "eth1"));
        config.netdevs[0].port.queues = 2;
        config.pins = pins
            .iter()
            .map(|&(thread, cpu)| PinConfig {
                thread: thread.to_owned(),
                cpu,
            })
            .collect();
        config
    }

    #[test]
    fn every_thread_can_be_pinned() {
        let all = "main, console, vcpu0, vcpu1, rng0, blk0, lan, lan.1, lan.ctrl";
        let pins: Vec<_> = all.split(", ").map(|thread| (thread, 3)).collect();
        assert_eq!(check_on(&config(&pins), Some(&[1, 3])), Ok(()));
        for thread in ["vcpu2", "net0", "lan.2", "lan.0", "blk1", "", "VCPU0"] {
            let refused = check_on(&config(&[(thread, 3)]), Some(&[3])).unwrap_err();
            let sentence = format!("there is no thread '{thread}' to pin; this guest has: {all}");
            assert_eq!(refused.to_string(), sentence);
        }
        assert_eq!(check(&config(&[])), Ok(()));
    }

    #[test]
    fn pins_are_distinct_and_on_cpus_that_are_there() {
        let refused = |pins: &[(&str, usize)]| {
            let allowed = [0, 1, 2, 5, 7, 8];
            check_on(&config(pins), Some(&allowed))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(&[("lan", 0), ("vcpu1", 1), ("lan", 0)]),
            "the thread 'lan' is pinned twice"
        );
        assert_eq!(
            refused(&[("lan", 0), ("vcpu1", 3)]),
            "'vcpu1' can't run on CPU 3: ringwire may use the CPUs 0-2,5,7-8 (`taskset -p` and the \
             cpuset of its cgroup decide)"
        );
        assert_eq!(check_on(&config(&[("lan", 9999)]), None), Ok(()));
    }
}
