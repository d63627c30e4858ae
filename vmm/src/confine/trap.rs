//! The last words of a thread that made a system call that it may not make.
//!
//! The filter answers with a trap: the call is not carried out, and the kernel sends SIGSYS to the thread, which
//! no mask and no other handler can keep from it (it ends the process where the signal is blocked, and setting
//! another handler is itself not allowed). Here the handler says what happened and ends the process.
#![expect(unsafe_code, reason = "a signal handler, and ending the process in it")]

use std::{
    cell::Cell,
    fmt::{self, Write},
    io, mem, ptr,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    stdio::stderr,
};

use super::names;
use crate::{exit::Status, terminal};

/// Longest name of a thread, in bytes, that is shown.
const NAME_MAX: usize = 24;
/// Longest sentence in bytes.
const TEXT_MAX: usize = 400;
/// How long to wait for a standard error that takes nothing. In milliseconds: the end must come.
const PATIENCE_NS: i64 = 100_000_000;
/// `si_code` of a signal by a filter (asm-generic/siginfo.h).
const SYS_SECCOMP: i32 = 1;

/// Text without allocation; what does not fit is left out.
#[derive(Clone, Copy)]
struct Text<const MOST: usize> {
    bytes: [u8; MOST],
    length: usize,
}

impl<const MOST: usize> Text<MOST> {
    const EMPTY: Self = Self {
        bytes: [0; MOST],
        length: 0,
    };

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl<const MOST: usize> Write for Text<MOST> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(text.bytes()) {
            *to = from;
            self.length += 1;
        }
        Ok(())
    }
}

thread_local! {
    /// Not the system's: that would take a call. Without a destructor, so that reading it does nothing else.
    static NAME: Cell<Text<NAME_MAX>> = const { Cell::new(Text::EMPTY) };
}

/// What the handler calls this thread.
pub(super) fn set_name(name: &str) {
    let mut text = Text::EMPTY;
    // Never fails.
    let _ = text.write_str(name);
    NAME.set(text);
}

/// The start of `siginfo_t` as SIGSYS has it (x86-64).
#[repr(C)]
struct Info {
    signal: i32,
    error: i32,
    code: i32,
    padding: i32,
    address: u64,
    call: i32,
    architecture: u32,
}

/// Installs the handler, for the whole process.
///
/// # Errors
/// The system's.
pub(super) fn install() -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = end;
    // SAFETY: all zeros is a value of it: plain integers, no signal in the mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // On the stack for overflows: the thread's own may be the reason.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action is initialized and outlives the call; its handler calls nothing but what
    // signal-safety(7) allows: system calls, and code that neither allocates nor waits.
    let result = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn end(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands over a siginfo_t, which is longer than this, and of plain integers.
    let info = unsafe { &*info.cast::<Info>() };
    terminal::restore();
    let status = if info.code == SYS_SECCOMP {
        say(i64::from(info.call));
        i32::from(Status::Forbidden as u8)
    } else {
        // Somebody sent the signal.
        128 + signal
    };
    // SAFETY: ends the process at once; nothing of it runs any more.
    unsafe { libc::_exit(status) }
}

fn say(call: i64) {
    let name = NAME.get();
    let name = str::from_utf8(name.as_bytes()).unwrap_or("?");
    let mut text: Text<TEXT_MAX> = Text::EMPTY;
    // Never fails.
    let _ = writeln!(
        text,
        "ringwire: the thread {name} made the system call {} ({call}), which it has no use for, so all was ended: \
         it runs somebody else's code, or this is a bug. Please report it. `--confine off` runs without this check",
        names::of(call).unwrap_or("?")
    );
    let mut fds = [PollFd::from_borrowed_fd(stderr(), PollFlags::OUT)];
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: PATIENCE_NS,
    };
    // A pipe that nobody reads must not keep the process.
    if matches!(poll(&mut fds, Some(&patience)), Ok(1)) {
        let _ = rustix::io::write(stderr(), text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_too_long_is_cut() {
        let mut text: Text<4> = Text::EMPTY;
        for piece in ["ab", "", "cde", "f"] {
            text.write_str(piece).unwrap();
        }
        assert_eq!(text.as_bytes(), b"abcd");
    }
}
