//! Standard error, which nobody may read: a pipe that is full, a terminal that was stopped.
//!
//! Whoever has something to say waits for it a moment, and if that was in vain the next ones don't wait at all,
//! until it takes something again. What was not said is counted, and the number is said then.

use std::{
    fmt::Display,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags, fstat, open},
    io::Errno,
    stdio::{dup2_stderr, dup2_stdout, stderr, stdout},
    termios::isatty,
};

/// How long a log line waits for a standard error that takes nothing.
const LINE_PATIENCE: Duration = Duration::from_millis(100);
/// The same for a sentence about the end, which waits also if lines before it did in vain.
const LAST_PATIENCE: Duration = Duration::from_millis(250);
/// What a pipe takes as a whole or not at all (PIPE_BUF, pipe(7)): where there is room for anything, there is for this.
const PIECE: usize = 4096;
/// The device number of /dev/ptmx, opening which makes a new terminal (the kernel's admin-guide/devices).
const PTMX: (u32, u32) = (5, 2);

/// What became of earlier lines.
#[derive(Debug, Default)]
struct State {
    /// Nobody took the last one.
    stuck: bool,
    /// The last one was taken in part.
    torn: bool,
    lost: u64,
}

static STATE: Mutex<State> = Mutex::new(State {
    stuck: false,
    torn: false,
    lost: 0,
});

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where log lines go: collects one and writes it when it is dropped.
#[derive(Debug, Default)]
pub struct Stderr(Vec<u8>);

impl Write for Stderr {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            state().line(&self.0, LINE_PATIENCE, stderr());
        }
    }
}

/// Writes `ringwire: ` and a sentence, about the end of the process or of what it was to do. Waits for a quarter of
/// a second at most.
pub fn say(sentence: &dyn Display) {
    let line = format!("ringwire: {sentence}\n");
    let mut state = state();
    state.stuck = false;
    state.line(line.as_bytes(), LAST_PATIENCE, stderr());
}

/// Says what was lost, if it can be said now.
pub(super) fn flush() {
    let mut state = state();
    if state.lost > 0 {
        state.line(b"", Duration::ZERO, stderr());
    }
}

impl State {
    fn line(&mut self, line: &[u8], patience: Duration, to: BorrowedFd<'_>) {
        let patience = if self.stuck { Duration::ZERO } else { patience };
        let deadline = Instant::now() + patience;
        let mut text = Vec::new();
        if self.torn {
            text.push(b'\n');
        }
        if self.lost > 0 {
            let lost = self.lost;
            // Never fails.
            let _ = writeln!(
                text,
                "{lost} log lines were lost here, as nobody took them from standard error"
            );
        }
        text.extend_from_slice(line);
        let written = write(&text, deadline, to);
        self.stuck = written < text.len();
        if written > 0 {
            self.lost = 0;
            self.torn = self.stuck;
        }
        if self.stuck {
            self.lost = self.lost.saturating_add(u64::from(!line.is_empty()));
        }
    }
}

/// Writes until the deadline; returns how many bytes. What can't be written at all, as nobody is there any more,
/// counts as written.
fn write(text: &[u8], deadline: Instant, to: BorrowedFd<'_>) -> usize {
    let mut written = 0;
    while let Some(left) = text.get(written..).filter(|left| !left.is_empty()) {
        if !wait(to, deadline) {
            break;
        }
        match rustix::io::write(to, left.get(..PIECE).unwrap_or(left)) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            // Another process was faster.
            Err(Errno::AGAIN) if Instant::now() < deadline => {}
            Err(Errno::AGAIN) => break,
            Err(_) => return text.len(),
        }
    }
    written
}

/// Waits until something can be written.
fn wait(to: BorrowedFd<'_>, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(
            &mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)],
            Some(&patience),
        ) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            // Not a descriptor: the write says so.
            Err(_) => return true,
        }
    }
}

/// Gives this process standard streams of its own, that never make it wait, where they are pipes or terminals. Not
/// those that it was given: `O_NONBLOCK` would be seen by all who have them, such as the shell.
///
/// Where that is refused (another user's terminal) they stay as they are, and a write is tried only
/// when there is room for it.
pub fn own_streams() {
    if let Some(own) = reopened(stdout()) {
        let _ = dup2_stdout(own);
    }
    if let Some(own) = reopened(stderr()) {
        let _ = dup2_stderr(own);
    }
}

fn reopened(stream: BorrowedFd<'_>) -> Option<OwnedFd> {
    use std::os::fd::AsRawFd;
    let found = fstat(stream).ok()?;
    let device = (
        rustix::fs::major(found.st_rdev),
        rustix::fs::minor(found.st_rdev),
    );
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Fifo => {}
        FileType::CharacterDevice if isatty(stream) && device != PTMX => {}
        _ => return None,
    }
    let path = format!("/proc/self/fd/{}", stream.as_fd().as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn lines_that_nobody_takes_are_counted_and_the_number_comes_with_the_next_one() {
        let (mut reader, writer) = pipe().unwrap();
        let mut state = State::default();
        let line = [&[b'x'; 4095][..], b"\n"].concat();
        let mut lines = 0;
        while !state.stuck {
            state.line(&line, Duration::from_millis(1), writer.as_fd());
            lines += 1;
        }
        for _ in 0..1000 {
            // It does not wait any more.
            state.line(b"lost\n", LONG, writer.as_fd());
        }
        assert_eq!(state.lost, 1001);
        let mut taken = vec![0; 2 * 4096];
        reader.read_exact(&mut taken).unwrap();
        state.line(b"the next one\n", LONG, writer.as_fd());
        assert!(!state.stuck && state.lost == 0);
        drop(writer);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        let rest = String::from_utf8(rest).unwrap();
        let mut end = rest.lines().skip(lines - 1 - 2);
        let told = "1001 log lines were lost here, as nobody took them from standard error";
        assert_eq!(end.next(), Some(told));
        assert_eq!(end.next(), Some("the next one"));
        assert_eq!(end.next(), None);
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_gone() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut state = State::default();
        state.line(b"x\n", LONG, writer.as_fd());
        assert!(!state.stuck && state.lost == 0);
    }

    #[test]
    fn own_streams_leave_those_of_others_as_they_were() {
        let (mut reader, writer) = pipe().unwrap();
        let own = reopened(writer.as_fd()).unwrap();
        let flags = |fd: BorrowedFd<'_>| rustix::fs::fcntl_getfl(fd).unwrap();
        assert!(flags(own.as_fd()).contains(OFlags::NONBLOCK));
        assert!(!flags(writer.as_fd()).contains(OFlags::NONBLOCK));
        rustix::io::write(&own, b"x").unwrap();
        drop((own, writer));
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        assert_eq!(all, "x");
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(reopened(file.as_fd()).is_none());
    }
}
