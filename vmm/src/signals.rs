//! Signals as events of the main loop.
#![expect(unsafe_code, reason = "signalfd has no safe wrapper in our crates")]

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use vmm_sys_util::signal::{block_signal, create_sigset, unblock_signal};

/// What ends the VM; SIGCONT, after which the terminal wants its modes again; SIGUSR1, which asks for
/// the counters; and SIGUSR2, which asks for announcements.
const SIGNALS: [i32; 6] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Delivers SIGHUP, SIGINT, SIGTERM, SIGCONT, SIGUSR1 and SIGUSR2 to whoever reads it, while it lives.
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
        for signal in SIGNALS {
            // An error here means that it is blocked already.
            if block_signal(signal).is_ok() {
                blocked.push(signal);
            }
        }
        let set = create_sigset(&SIGNALS).map_err(io::Error::from)?;
        // SAFETY: the set is initialized and outlives the call; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = File::from(fd);
        Ok(Self { file, blocked })
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
