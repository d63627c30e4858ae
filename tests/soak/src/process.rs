//! A `ringwire` process, seen from outside: what it costs, and how it ended.

use std::{fs, path::PathBuf, process::ExitStatus};

use ringwire_tests::by_pair;
use rustix::process::{Pid, Signal, kill_process};

use crate::problem::{Outcome, Problem, wrong};

/// What a process costs at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Memory of its own (RssAnon), in KiB: guest RAM is shared memory.
    pub(crate) memory: u64,
    /// File descriptors.
    pub(crate) descriptors: u64,
    /// Threads.
    pub(crate) threads: u64,
}

/// What process `id` costs now; `None` if it has just ended.
pub(crate) fn cost(id: u32) -> Option<Cost> {
    let process = PathBuf::from(format!("/proc/{id}"));
    let status = fs::read_to_string(process.join("status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Cost {
        memory: field("RssAnon:")?,
        threads: field("Threads:")?,
        descriptors: fs::read_dir(process.join("fd")).ok()?.count() as u64,
    })
}

/// Sends a signal.
pub(crate) fn signal(id: u32, signal: Signal) -> Outcome {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return wrong(format!("{id} is no process"));
    };
    kill_process(pid, signal).map_err(|error| Problem::system("send a signal")(error.into()))
}

/// How a process is brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
    /// The guest switches itself off.
    PowerOff,
}

impl Ending {
    /// The exit status that must come of it; after SIGKILL there is none.
    fn code(self) -> Option<i32> {
        match self {
            Self::Terminate => Some(128 + Signal::TERM.as_raw()),
            Self::PowerOff => Some(0),
            Self::Kill => None,
        }
    }
}

/// How it ended must be right, and every frame of its queue pairs somewhere: all together must be `frames`. A process that
/// was killed tells nothing.
pub(crate) fn judge_end(ending: Ending, status: ExitStatus, log: &str, frames: u64) -> Outcome {
    let Some(code) = ending.code() else {
        return Ok(());
    };
    if status.code() != Some(code) {
        return wrong(format!(
            "ringwire ended after {ending:?} with {status}:\n{log}"
        ));
    }
    let total = by_pair(log, "frames_total");
    let mut sums = vec![0; total.len()];
    for place in ["frames_free", "frames_fill", "frames_rx", "frames_tx"] {
        for (sum, count) in sums.iter_mut().zip(by_pair(log, place)) {
            *sum += count;
        }
    }
    if sums != total || total.iter().sum::<u64>() != frames {
        return wrong(format!(
            "of {frames} frames the pairs have {total:?}, and {sums:?} are accounted for:\n{log}"
        ));
    }
    if by_pair(log, "xdp_tx_invalid_descs")
        .iter()
        .any(|&it| it > 0)
    {
        return wrong(format!("the kernel found a descriptor invalid:\n{log}"));
    }
    for words in ["panicked", "don't add up", "astray", "a bug in"] {
        if log.contains(words) {
            return wrong(format!("ringwire says '{words}':\n{log}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_frame_that_is_missing_shows() {
        let pair = "netdev 'net0': wire0, pair 0: xdp_tx_invalid_descs=0 frames_free=3 frames_fill=60 frames_rx=0 frames_tx=";
        let judge = |log: &str, code: i32, frames| {
            let status = ExitStatus::from_raw(code << 8);
            judge_end(Ending::Terminate, status, log, frames).is_ok()
        };
        let right = format!("{pair}1 frames_total=64\n");
        assert!(judge(&right, 143, 64));
        assert!(!judge(&right, 143, 128), "a pair is not there");
        assert!(!judge(&right, 1, 64));
        assert!(!judge("", 143, 64));
        assert!(!judge(&format!("{pair}0 frames_total=64\n"), 143, 64));
        assert!(!judge(&format!("{right}thread panicked\n"), 143, 64));
        let invalid = right.replace("descs=0", "descs=1");
        assert!(!judge(&invalid, 143, 64));
        let killed = ExitStatus::from_raw(9);
        assert!(judge_end(Ending::Kill, killed, "", 64).is_ok());
    }
}
