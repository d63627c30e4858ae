//! Processes that hold something for another one, and do nothing else, until that one has ended.
//!
//! An attendant waits for the end of a pipe whose other end its maker has. The system closes that end with the
//! last process that has it, however it ends. What is written into the pipe is not read, so nobody who has that
//! end can do more than to let go.
//!
//! Whoever gets hold of an attendant finds nothing: no descriptors but what it holds, no environment, no
//! capabilities but what its end takes, no memory that others may look into, no files (Landlock), and a handful of
//! system calls (seccomp; docs/confinement.md has the table). It neither reads anything nor gets a signal but SIGKILL.

use std::{
    fmt,
    io::{self, PipeReader, PipeWriter, Read},
    os::fd::{AsFd, OwnedFd, RawFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{DumpableBehavior, Pid, WaitOptions, set_dumpable_behavior, setsid, waitpid},
    stdio::{dup2_stdin, dup2_stdout, stdin, stdout},
    thread::CapabilitySet,
};

use crate::{
    confine::{self, AttendantKind},
    privileges::{self, User},
    processes,
};

/// What the attendant says when it is ready; anything else is a sentence.
const READY: &[u8] = &[0];

/// Why there is no attendant.
#[derive(Debug, thiserror::Error)]
pub enum AttendantError {
    /// no process
    #[error("could not start it: {0}")]
    Start(#[source] io::Error),
    /// it has gone
    #[error(
        "it ended before it was ready: is there room for one more process (pids.max, ulimit -u)?"
    )]
    Gone,
    /// what it said
    #[error("it {0}")]
    Said(String),
}

/// What an attendant is for.
pub(crate) struct Duty<'a> {
    /// Which system calls it has use for.
    pub(crate) kind: AttendantKind,
    /// Descriptors that it has open, besides its pipe.
    pub(crate) holds: &'a [RawFd],
    /// Who it is; `None`: its maker's user.
    pub(crate) user: Option<User>,
    /// Capabilities that it keeps of its maker's.
    pub(crate) keeps: CapabilitySet,
    /// Done with the maker's privileges, before they go.
    pub(crate) begins: &'a dyn Fn() -> Result<(), String>,
    /// Done at the end, under the filter; its exit status.
    pub(crate) ends: &'a dyn Fn() -> u8,
}

/// The end of the pipe that attendants wait for: while any process has it, they stay.
#[derive(Debug)]
pub(crate) struct Leash {
    held: OwnedFd,
    watched: OwnedFd,
}

impl Leash {
    /// One that this process holds, and that is closed in programs that it executes.
    pub(crate) fn new() -> io::Result<Self> {
        let (watched, held) = io::pipe()?;
        Ok(Self {
            held: held.into(),
            watched: watched.into(),
        })
    }

    /// For a child: the end to watch, with the other one let go here.
    pub(crate) fn watched(self) -> Watched {
        Watched(self.watched)
    }

    /// For the maker: what keeps the others there.
    pub(crate) fn held(self) -> OwnedFd {
        self.held
    }
}

/// The end of a [`Leash`] that tells when nobody holds it any more.
#[derive(Debug)]
pub(crate) struct Watched(OwnedFd);

impl Watched {
    /// Whether nobody holds it any more.
    pub(crate) fn is_let_go(&self) -> io::Result<bool> {
        is_let_go(self.0.as_fd(), Some(&Timespec::default()))
    }
}

/// Waits that long; `None`: until it is so. Of what is written nothing is asked.
fn is_let_go(watched: impl AsFd, timeout: Option<&Timespec>) -> io::Result<bool> {
    let mut fds = [PollFd::new(&watched, PollFlags::empty())];
    Ok(retry_on_intr(|| poll(&mut fds, timeout))? > 0)
}

/// Starts a child that attends; it is ready then. The descriptor is what keeps it.
///
/// For a process with one thread.
pub(crate) fn start(duty: &Duty<'_>) -> Result<(Pid, OwnedFd), AttendantError> {
    start_by(duty, processes::fork)
}

/// Starts one that is nobody's child, in a session of its own: signals to the maker's group or from its terminal do
/// not reach it, and nobody has to wait for it.
///
/// For a process with one thread.
pub(crate) fn start_apart(duty: &Duty<'_>) -> Result<OwnedFd, AttendantError> {
    let (between, held) = start_by(duty, || match processes::fork()? {
        Some(between) => Ok(Some(between)),
        None => match setsid()
            .map_err(io::Error::from)
            .and_then(|_| processes::fork())
        {
            Ok(None) => Ok(None),
            // What has not started says nothing, and that is noticed.
            Ok(Some(_)) | Err(_) => processes::exit_now(0),
        },
    })?;
    retry_on_intr(|| waitpid(Some(between), WaitOptions::empty()))
        .map_err(|error| AttendantError::Start(error.into()))?;
    Ok(held)
}

fn start_by(
    duty: &Duty<'_>,
    fork: impl FnOnce() -> io::Result<Option<Pid>>,
) -> Result<(Pid, OwnedFd), AttendantError> {
    let start = || {
        let (leash, told) = (Leash::new()?, io::pipe()?);
        Ok((fork()?, leash, told))
    };
    let (child, leash, (hears, tells)) = start().map_err(AttendantError::Start)?;
    let Some(child) = child else {
        attend(duty, leash, &tells)
    };
    let held = leash.held();
    drop(tells);
    let failed = match heard(hears) {
        Ok(said) if said == READY => return Ok((child, held)),
        Ok(said) if said.is_empty() => AttendantError::Gone,
        Ok(said) => AttendantError::Said(String::from_utf8_lossy(&said).into_owned()),
        Err(error) => AttendantError::Start(error),
    };
    drop(held);
    // It has ended, or does so now.
    let _ = retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()));
    Err(failed)
}

/// All that it said.
fn heard(mut hears: PipeReader) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    hears.read_to_end(&mut said)?;
    Ok(said)
}

/// The attendant's life. Its filter knows the numbers of the pipes' ends: standard input and output.
fn attend(duty: &Duty<'_>, leash: Leash, tells: &PipeWriter) -> ! {
    let Watched(watched) = leash.watched();
    if dup2_stdin(&watched).is_err() || dup2_stdout(tells).is_err() {
        // Nothing said is noticed.
        processes::exit_now(1)
    }
    // Closed by its number from now on.
    std::mem::forget(watched);
    let prepared = prepare(duty);
    let said = match &prepared {
        Ok(()) => rustix::io::write(stdout(), READY),
        Err(sentence) => rustix::io::write(stdout(), sentence.as_bytes()),
    };
    if prepared.is_err() || said.is_err() {
        processes::exit_now(1)
    }
    processes::close_stdout();
    loop {
        match is_let_go(stdin(), None) {
            Ok(true) => processes::exit_now((duty.ends)()),
            Ok(false) => {}
            // Rather nothing held than a process that spins.
            Err(_) => processes::exit_now(1),
        }
    }
}

/// Gives up all that it does not need. Nothing is allocated or freed once the filter is there: it knows no calls for that.
fn prepare(duty: &Duty<'_>) -> Result<(), String> {
    (duty.begins)()?;
    processes::block_signals().map_err(failed("block signals"))?;
    processes::close_others(&[&[0, 1], duty.holds].concat())
        .map_err(failed(processes::CLOSE_OTHERS))?;
    processes::erase_environment();
    // Before, too: without privileges it is like others of its user, who may look into it otherwise.
    not_dumpable()?;
    privileges::drop_groups();
    privileges::drop_all_but(duty.keeps, duty.user).map_err(|error| error.to_string())?;
    not_dumpable()?;
    confine::enter_attendant(duty.kind).map_err(|error| error.to_string())
}

fn not_dumpable() -> Result<(), String> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("make itself undumpable"))
}

/// For `map_err`: what the attendant tried.
pub(crate) fn failed<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> String + '_ {
    move |error| format!("could not {what}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leash_is_let_go_with_its_last_holder_and_not_by_what_is_written() {
        let Leash { held, watched } = Leash::new().unwrap();
        let watched = Watched(watched);
        assert!(!watched.is_let_go().unwrap());
        rustix::io::write(&held, b"anything").unwrap();
        assert!(!watched.is_let_go().unwrap());
        let other = held.try_clone().unwrap();
        drop(held);
        assert!(!watched.is_let_go().unwrap());
        drop(other);
        assert!(watched.is_let_go().unwrap());
    }
}
