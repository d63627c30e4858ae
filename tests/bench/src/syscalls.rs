#![expect(unsafe_code, reason = "rustix has no perf_event_open")]
//! System calls of one thread, counted by the kernel: the tracepoint raw_syscalls:sys_enter and perf_event_open(2).

use std::{
    fs::{self, File},
    io::{self, Read},
    mem::size_of,
    os::fd::{FromRawFd, OwnedFd},
    process::Command,
};

const TRACEPOINT: &str = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id";

/// The first version of the kernel's `struct perf_event_attr` (linux/perf_event.h); it takes that from everybody.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

/// PERF_TYPE_TRACEPOINT.
const KIND_TRACEPOINT: u32 = 2;
/// PERF_FLAG_FD_CLOEXEC.
const CLOSE_ON_EXEC: libc::c_ulong = 8;

/// The tracepoint, by the number that this kernel gave it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tracepoint(u64);

impl Tracepoint {
    /// Asks tracefs, which is mounted for the question where it is not.
    pub(crate) fn find() -> io::Result<Self> {
        let text = fs::read_to_string(TRACEPOINT).or_else(|_| {
            // In a mount namespace that ends with the command.
            let ask = format!("mount -t tracefs none /sys/kernel/tracing && cat {TRACEPOINT}");
            let output = Command::new("unshare")
                .args(["--mount", "sh", "-c", &ask])
                .output()?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(io::Error::other(why))
        })?;
        let number = text.trim().parse();
        number.map(Self).map_err(io::Error::other)
    }
}

/// A count that goes on until it is dropped, or until the thread ends: then it stays as it is.
#[derive(Debug)]
pub(crate) struct SystemCalls(File);

impl SystemCalls {
    /// Of the thread with that id, from now on.
    pub(crate) fn of(thread: libc::pid_t, tracepoint: Tracepoint) -> io::Result<Self> {
        let attributes = Attributes {
            kind: KIND_TRACEPOINT,
            size: u32::try_from(size_of::<Attributes>()).unwrap_or(0),
            config: tracepoint.0,
            ..Attributes::default()
        };
        // SAFETY: the kernel reads as many bytes of the attributes as their `size` says, and they live.
        let result = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                thread,
                // On any CPU, in no group.
                -1,
                -1,
                CLOSE_ON_EXEC,
            )
        };
        let fd = libc::c_int::try_from(result).unwrap_or(-1);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(fd.into()))
    }

    /// So far.
    pub(crate) fn count(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_counted() {
        let tracepoint = match Tracepoint::find() {
            Ok(tracepoint) => tracepoint,
            Err(error) => {
                eprintln!("skipped: no tracepoint of system calls ({error})");
                return;
            }
        };
        let me = rustix::thread::gettid().as_raw_nonzero().get();
        let mut calls = SystemCalls::of(me, tracepoint).unwrap();
        let before = calls.count().unwrap();
        for _ in 0..100 {
            let _ = rustix::process::getppid();
        }
        let counted = calls.count().unwrap() - before;
        // The last read is one too.
        assert_eq!(counted, 101);
    }
}
