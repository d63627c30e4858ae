//! Signals as events of the main loop. docs/console.md has a table of what each of them does.
#![expect(
    unsafe_code,
    reason = "signalfd and ignoring a signal have no safe wrapper in our crates"
)]

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use vmm_sys_util::signal::{block_signal, create_sigset, unblock_signal};

/// What ends the VM as SIGTERM does, rather than the process in the middle of something: all that others send and
/// whose default is a process's end.
const ENDS: [i32; 11] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
];

/// SIGCONT, after which the terminal wants its modes again; SIGUSR1, which asks for the counters; and
/// SIGUSR2, which asks for announcements.
const OTHERS: [i32; 3] = [libc::SIGCONT, libc::SIGUSR1, libc::SIGUSR2];

/// Delivers the signals that end a VM, SIGCONT, SIGUSR1 and SIGUSR2 to whoever reads it, while it lives.
///
/// SIGXFSZ is ignored from then on, for good: a file that may not get longer (RLIMIT_FSIZE) is an error of the write
/// then (EFBIG). Rust has SIGPIPE ignored from the start.
///
/// Made before any thread is started: they inherit the blocked signals, without which one of them
/// would get the signal instead.
#[derive(Debug)]
pub struct Signals {
    file: File,
    /// Which were not blocked before, to be set free again.
    blocked: Vec<i32>,
}

impl Signals {
    /// Blocks the signals in this thread and opens the signalfd.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> io::Result<Self> {
        let mut blocked = Vec::new();
        let signals = [&ENDS[..], &OTHERS[..]].concat();
        for &signal in &signals {
            // An error here means that it is blocked already.
            if block_signal(signal).is_ok() {
                blocked.push(signal);
            }
        }
        let set = create_sigset(&signals).map_err(io::Error::from)?;
        // SAFETY: the set is initialized and outlives the call; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = File::from(fd);
        // SAFETY: no handler is installed, so nothing runs that it could upset.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        Ok(Self { file, blocked })
    }

    /// Whether this signal is to end the VM.
    pub(crate) fn ends(number: i32) -> bool {
        ENDS.contains(&number)
    }

    /// The number of the next pending signal.
    pub fn next(&self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        (&self.file).read_exact(&mut info).ok()?;
        // `ssi_signo` is the first field.
        let (number, _) = info.split_first_chunk()?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // What is still pending would end the process in the middle of its clean-up: take it.
        while self.next().is_some() {}
        for signal in &self.blocked {
            let _ = unblock_signal(*signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_is_listened_for_once_and_has_a_line_in_the_documentation() {
        let mut all = [&ENDS[..], &OTHERS[..]].concat();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(ENDS.iter().all(|number| Signals::ends(*number)));
        assert!(!OTHERS.iter().any(|number| Signals::ends(*number)));
        let documentation = include_str!("../../docs/console.md");
        // All of Linux' standard signals (signal(7)).
        for name in [
            "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV",
            "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN",
            "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
        ] {
            let name = format!("SIG{name}");
            let rows = documentation.lines().filter(|line| line.starts_with('|'));
            let cells = rows.filter_map(|row| row.split('|').nth(1));
            let named = cells.filter(|cell| cell.split([',', ' ']).any(|word| word == name));
            assert_eq!(named.count(), 1, "{name}");
        }
    }
}
