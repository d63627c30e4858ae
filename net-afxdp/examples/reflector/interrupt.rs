#![expect(unsafe_code, reason = "std has no way to wait for a signal")]
//! Waits for ctrl-C.

use std::{io, mem, ptr};

/// SIGINT and SIGTERM, held back until [`Signals::wait`] takes one.
pub(crate) struct Signals(libc::sigset_t);

impl Signals {
    /// Holds them back in this thread and in those that it starts from now on.
    pub(crate) fn hold() -> io::Result<Self> {
        // SAFETY: all zeros is a valid set.
        let mut set: libc::sigset_t = unsafe { mem::zeroed() };
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: the set is valid and outlives the call.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: as above; the old mask is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) } {
            0 => Ok(Self(set)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Sleeps until one comes.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let mut signal = 0;
        // SAFETY: both are valid and outlive the call.
        match unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}
