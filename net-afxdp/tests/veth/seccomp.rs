#![expect(unsafe_code, reason = "seccomp(2) has no safe wrapper")]
//! Makes chosen system calls of one thread fail: its calls are reported to a supervisor in the same
//! process (seccomp_unotify(2)), who lets them through or answers with an error.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// One of the thread's calls, waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    id: u64,
    /// Its number, `SYS_*`.
    pub(crate) number: libc::c_long,
    pub(crate) arguments: [u64; 6],
}

/// From now on the calling thread's calls of these numbers wait for an answer through what is returned.
/// For the rest of its life, and that of the threads that it starts.
pub(crate) fn supervise(numbers: &[libc::c_long]) -> io::Result<OwnedFd> {
    let code = |class: u32| u16::try_from(class).unwrap();
    let statement = |class, k| libc::sock_filter {
        code: code(class),
        jt: 0,
        jf: 0,
        k,
    };
    // The number is the first field of struct seccomp_data.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for (left, number) in (0..numbers.len()).rev().zip(numbers) {
        filter.push(libc::sock_filter {
            code: code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K),
            // Over the other comparisons and the "allow".
            jt: u8::try_from(left + 1).unwrap(),
            jf: 0,
            k: u32::try_from(*number).unwrap(),
        });
    }
    let allow = libc::BPF_RET | libc::BPF_K;
    filter.push(statement(allow, libc::SECCOMP_RET_ALLOW));
    filter.push(statement(allow, libc::SECCOMP_RET_USER_NOTIF));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its filter outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) })
}

/// The next call. `None`: the thread has ended.
pub(crate) fn next(listener: &OwnedFd) -> Option<Call> {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        let pause = Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        assert_ne!(poll(&mut fds, Some(&pause)).unwrap(), 0, "the thread hangs");
        if !fds[0].revents().contains(PollFlags::IN) {
            return None;
        }
        // SAFETY: all zeros is what the kernel wants.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes a notice, which outlives the call.
        let result = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                &raw mut notice,
            )
        };
        if result == 0 {
            return Some(Call {
                id: notice.id,
                number: libc::c_long::from(notice.data.nr),
                arguments: notice.data.args,
            });
        }
    }
}

/// Lets the call through, or fails it.
pub(crate) fn answer(listener: &OwnedFd, call: &Call, error: Option<i32>) {
    let response = libc::seccomp_notif_resp {
        id: call.id,
        val: 0,
        error: error.map_or(0, |error| -error),
        flags: match error {
            Some(_) => 0,
            None => u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap(),
        },
    };
    // SAFETY: the kernel reads a response, which outlives the call. It fails when the thread is gone.
    unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const response,
        )
    };
}

/// Makes a call in its thread's place, later: what it was to give back is given back.
pub(crate) fn carry_out(call: &Call) {
    assert!([libc::SYS_close, libc::SYS_munmap].contains(&call.number));
    let [first, second, ..] = call.arguments;
    // SAFETY: the thread has given up what it names: it called this with it, as the last thing that it did with it.
    let result = unsafe { libc::syscall(call.number, first, second) };
    assert_eq!(result, 0, "{call:?}: {}", io::Error::last_os_error());
}
