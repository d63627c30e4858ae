//! A process in the jail, seen from outside.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, retry_on_intr},
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, pidfd_open,
        pidfd_send_signal, waitid, waitpid,
    },
};

use super::End;
use crate::signals::Signals;

/// A child; dropped, it is killed, and gone for good.
#[derive(Debug)]
pub(super) struct Child {
    process: OwnedFd,
    ended: bool,
}

impl Child {
    /// Takes a child that nobody has waited for.
    pub(super) fn new(pid: Pid) -> io::Result<Self> {
        let process = pidfd_open(pid, PidfdFlags::empty()).inspect_err(|_| {
            // Nobody would end it otherwise; and the namespace's first process waits until it is reaped.
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        })?;
        let ended = false;
        Ok(Self { process, ended })
    }

    /// Passes signals on until it has ended.
    pub(super) fn pass_on(&mut self, signals: &Signals) -> io::Result<End> {
        loop {
            let mut fds = [
                PollFd::new(&self.process, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            let ended = !fds[0].revents().is_empty();
            while let Some(number) = signals.next() {
                // A process that has just ended needs none.
                let signal = Signal::from_named_raw(number);
                let _ = signal.map(|signal| pidfd_send_signal(&self.process, signal));
            }
            if ended {
                return self.wait();
            }
        }
    }

    /// Waits for its end.
    fn wait(&mut self) -> io::Result<End> {
        let id = || WaitId::PidFd(self.process.as_fd());
        let status = retry_on_intr(|| waitid(id(), WaitIdOptions::EXITED))?;
        self.ended = true;
        let status = status.ok_or(Errno::CHILD)?;
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => End::Exited(u8::try_from(status).unwrap_or(u8::MAX)),
            (None, signal) => End::Killed(signal.unwrap_or_default()),
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
            let _ = self.wait();
        }
    }
}
