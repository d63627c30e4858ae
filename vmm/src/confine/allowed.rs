//! Which system calls each kind of thread has use for, and why. docs/confinement.md shows these tables, and a
//! test compares them.

use libc::{
    SYS_bpf, SYS_brk, SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone, SYS_clone3, SYS_close,
    SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait, SYS_eventfd2, SYS_exit, SYS_exit_group,
    SYS_fallocate, SYS_fcntl, SYS_fdatasync, SYS_ftruncate, SYS_futex, SYS_getcwd, SYS_getpid,
    SYS_getrandom, SYS_getsockopt, SYS_gettid, SYS_ioctl, SYS_lseek, SYS_madvise, SYS_mmap,
    SYS_mprotect, SYS_mremap, SYS_munmap, SYS_newfstatat, SYS_open, SYS_openat, SYS_ppoll,
    SYS_prctl, SYS_pread64, SYS_preadv, SYS_pwrite64, SYS_pwritev, SYS_read, SYS_readlink,
    SYS_readlinkat, SYS_recvfrom, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sched_getaffinity, SYS_sched_setaffinity,
    SYS_sched_yield, SYS_seccomp, SYS_sendto, SYS_set_robust_list, SYS_sigaltstack, SYS_socket,
    SYS_statx, SYS_tgkill, SYS_timerfd_create, SYS_timerfd_settime, SYS_unlinkat, SYS_write,
    SYS_writev,
};

use super::kind::{AttendantKind, ThreadKind};

/// A value of an argument, and its name for people.
pub(super) type Value = (u64, &'static str);

/// Which arguments a call may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    /// Any.
    Any,
    /// This argument (from 0 on, its lower 32 bits) is one of these.
    OneOf(u8, &'static [Value]),
    /// This argument has none of these bits.
    Without(u8, Value),
    /// This pointer is null.
    Null(u8, &'static str),
    /// This argument is our own process ID.
    OwnPid(u8),
    /// Both are so.
    Both(&'static Only, &'static Only),
}

/// A system call that a thread may make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: i64,
    pub(super) only: Only,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "docs/confinement.md is made from it")
    )]
    pub(super) why: &'static str,
}

const fn call(number: i64, why: &'static str) -> Call {
    limited(number, Only::Any, why)
}

const fn limited(number: i64, only: Only, why: &'static str) -> Call {
    Call { number, only, why }
}

/// A constant of libc and its name.
macro_rules! int {
    ($name:ident) => {
        (unsigned(libc::$name), stringify!($name))
    };
}

/// The same of an ioctl's number.
macro_rules! ioctl {
    ($name:ident) => {
        (libc::$name, stringify!($name))
    };
}

const fn unsigned(value: i32) -> u64 {
    // None of them is negative.
    value.unsigned_abs() as u64
}

/// In place of a thread's ID.
const ITSELF: Value = (0, "the calling thread");

/// The flags with which glibc makes a thread, by their bits.
const THREAD: Value = (
    unsigned(
        libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM
            | libc::CLONE_SETTLS
            | libc::CLONE_PARENT_SETTID
            | libc::CLONE_CHILD_CLEARTID,
    ),
    "a thread's flags",
);

const NOT_EXECUTABLE: Only = Only::Without(2, int!(PROT_EXEC));

/// What every thread may do: live, have memory, wait, write log lines, and end in words.
pub(super) const COMMON: &[Call] = &[
    call(
        SYS_write,
        "log lines, eventfds (interrupts, wake-ups), the serial console",
    ),
    call(SYS_writev, "glibc's last words before it aborts"),
    call(SYS_close, "descriptors of what ends"),
    limited(SYS_mmap, NOT_EXECUTABLE, "memory"),
    limited(SYS_mprotect, NOT_EXECUTABLE, "memory: heaps that grow"),
    call(SYS_munmap, "memory"),
    call(SYS_mremap, "memory: long vectors that grow"),
    call(
        SYS_madvise,
        "memory: the stack of a thread that ends, heaps that shrink",
    ),
    call(SYS_brk, "memory"),
    call(SYS_futex, "locks, channels, joining threads"),
    call(
        SYS_ppoll,
        "waiting for a slow standard output or error, or for the console's input; waking a card's driver that is polled (busy-poll=)",
    ),
    call(
        SYS_restart_syscall,
        "the kernel's, for a sleep that a stop (SIGSTOP) interrupted",
    ),
    call(SYS_rt_sigreturn, "the end of a signal handler"),
    call(
        SYS_rt_sigprocmask,
        "glibc: threads that end, signals to threads, abort",
    ),
    limited(
        SYS_rt_sigaction,
        Only::OneOf(0, &[int!(SIGSEGV), int!(SIGBUS), int!(SIGABRT)]),
        "a crash ends the process as it should",
    ),
    call(SYS_sigaltstack, "the end of a thread"),
    call(SYS_sched_yield, "locks"),
    call(
        SYS_sched_getaffinity,
        "glibc's malloc: how many heaps are worth it",
    ),
    call(
        SYS_clock_gettime,
        "the time, where the kernel has no vDSO clock",
    ),
    call(SYS_clock_nanosleep, "bounded waiting"),
    call(SYS_getrandom, "seeds of hash tables, glibc's malloc"),
    call(SYS_getpid, "signals to threads, abort"),
    call(SYS_gettid, "panic messages, abort"),
    limited(
        SYS_tgkill,
        Only::OwnPid(0),
        "signals to own threads: vCPUs that are to stop, abort",
    ),
    limited(
        SYS_fcntl,
        Only::OneOf(1, &[int!(F_GETFD)]),
        "Rust's own checks in debug builds",
    ),
    limited(
        SYS_prctl,
        Only::OneOf(0, &[int!(PR_SET_VMA)]),
        "glibc's malloc, if it is tuned to name its memory",
    ),
    call(SYS_exit, "the end of a thread"),
    call(SYS_exit_group, "the end of the process"),
];

/// What is not carried out but answered by ENOSYS, for the spawner: glibc then makes the call whose arguments a filter
/// can see.
pub(super) const ABSENT: &[Call] = &[call(SYS_clone3, "making a thread: `clone` does it, too")];

/// What is not carried out but answered by EACCES, for all threads: what libraries try by themselves and can do
/// without.
pub(super) const REFUSED: &[Call] = &[
    call(
        SYS_open,
        "glibc's malloc: /proc and /sys, how it may give memory back",
    ),
    call(
        SYS_openat,
        "the same; symbols for a panic's backtrace (RUST_BACKTRACE=1)",
    ),
    call(SYS_newfstatat, "a panic's backtrace"),
    call(SYS_statx, "a panic's backtrace"),
    call(SYS_readlink, "a panic's backtrace"),
    call(SYS_readlinkat, "a panic's backtrace"),
    call(SYS_getcwd, "a panic's backtrace"),
];

/// The terminal gets its modes back on any thread that panics.
macro_rules! terminal {
    ($($more:expr),*) => {
        &[ioctl!(TCGETS), ioctl!(TCSETS), ioctl!(TCGETS2), ioctl!(TCSETS2), $($more),*]
    };
}

const TERMINAL: Call = limited(
    SYS_ioctl,
    Only::OneOf(1, terminal!()),
    "the terminal's modes, given back after a panic",
);

const READ: Call = call(SYS_read, "kicks, alarms and other events");
const EPOLL_WAIT: Call = call(SYS_epoll_wait, "waiting for events");
const EPOLL_CTL: Call = call(SYS_epoll_ctl, "what to wait for");

const SENDTO: Call = limited(
    SYS_sendto,
    Only::Null(4, "no address"),
    "AF_XDP: there are frames to send; netlink questions",
);
const RECVFROM: Call = call(
    SYS_recvfrom,
    "AF_XDP: there is room for frames; netlink answers",
);
const GETSOCKOPT: Call = call(
    SYS_getsockopt,
    "AF_XDP: the kernel's counters, the rings to unmap",
);
const SET_TIMER: Call = call(
    SYS_timerfd_settime,
    "an interrupt that is put off (coalescing)",
);

/// Starting and stopping a device's threads, on whichever thread the driver asks for it.
const EVENTFD: Call = call(SYS_eventfd2, "a device starts: its threads' stop signal");
const EPOLL: Call = call(
    SYS_epoll_create1,
    "a device starts: its threads' event loops",
);
const TIMER: Call = call(SYS_timerfd_create, "a device starts: its threads' alarms");

/// KVM_RUN and the like have no constants in libc: ioctl numbers of linux/kvm.h.
const KVM_RUN: Value = (0xae80, "KVM_RUN");
const KVM_GET_REGS: Value = (0x8090_ae81, "KVM_GET_REGS");
const KVM_GET_MP_STATE: Value = (0x8004_ae98, "KVM_GET_MP_STATE");
const KVM_GET_VCPU_EVENTS: Value = (0x8040_ae9f, "KVM_GET_VCPU_EVENTS");
const KVM_IOEVENTFD: Value = (0x4040_ae79, "KVM_IOEVENTFD");
const KVM_SET_GSI_ROUTING: Value = (0x4008_ae6a, "KVM_SET_GSI_ROUTING");
/// linux/seccomp.h, SECCOMP_SET_MODE_FILTER.
const SET_MODE_FILTER: Value = (1, "SECCOMP_SET_MODE_FILTER");
/// linux/sockios.h.
const SIOCETHTOOL: Value = (0x8946, "SIOCETHTOOL");
/// linux/bpf.h.
const BPF_MAP_DELETE_ELEM: Value = (3, "BPF_MAP_DELETE_ELEM");
const BPF_LINK_DETACH: Value = (34, "BPF_LINK_DETACH");

const MAIN: &[Call] = &[
    READ,
    EPOLL_WAIT,
    EPOLL_CTL,
    SENDTO,
    RECVFROM,
    GETSOCKOPT,
    SET_TIMER,
    limited(
        SYS_socket,
        Only::OneOf(0, &[int!(AF_UNIX)]),
        "for the next one: the speed of a link that is up again",
    ),
    limited(
        SYS_ioctl,
        Only::OneOf(
            1,
            terminal!(SIOCETHTOOL, KVM_IOEVENTFD, KVM_SET_GSI_ROUTING),
        ),
        "the terminal's modes; the link's speed; devices that are reset at the end",
    ),
    limited(
        SYS_bpf,
        Only::OneOf(0, &[BPF_LINK_DETACH, BPF_MAP_DELETE_ELEM]),
        "the XDP program, or our sockets, off the interface at the end",
    ),
];

const VCPU: &[Call] = &[
    limited(
        SYS_ioctl,
        Only::OneOf(
            1,
            terminal!(
                KVM_RUN,
                KVM_GET_REGS,
                KVM_GET_MP_STATE,
                KVM_GET_VCPU_EVENTS,
                KVM_IOEVENTFD,
                KVM_SET_GSI_ROUTING
            ),
        ),
        "running the guest; BARs that move, interrupt messages; what it was at when KVM gave up, whether \
         it has halted; the terminal's modes, given back after a panic",
    ),
    READ,
    EVENTFD,
    EPOLL,
    EPOLL_CTL,
    TIMER,
    SET_TIMER,
    SENDTO,
    RECVFROM,
    GETSOCKOPT,
];

const NET: &[Call] = &[
    TERMINAL, READ, EPOLL_WAIT, EPOLL_CTL, SENDTO, RECVFROM, GETSOCKOPT, SET_TIMER,
];

const NET_CONTROL: &[Call] = &[
    TERMINAL, READ, EPOLL_WAIT, EPOLL_CTL, EVENTFD, EPOLL, TIMER, SET_TIMER, SENDTO, RECVFROM,
    GETSOCKOPT,
];

const BLK: &[Call] = &[
    TERMINAL,
    READ,
    EPOLL_WAIT,
    EPOLL_CTL,
    call(SYS_preadv, "reading the disk"),
    call(SYS_pwritev, "writing it"),
    call(SYS_fdatasync, "flushing it"),
    call(SYS_fallocate, "discarding and zeroing parts of it"),
];

const RNG: &[Call] = &[TERMINAL, READ, EPOLL_WAIT, EPOLL_CTL];

const CONSOLE: &[Call] = &[TERMINAL, call(SYS_read, "the console's input")];

const CONSOLE_OUTPUT: &[Call] = &[
    limited(
        SYS_ioctl,
        Only::OneOf(1, terminal!(ioctl!(FIONREAD))),
        "the terminal's modes, given back after a panic; whether the reader of a pipe takes anything",
    ),
    call(SYS_lseek, "how long the console's file is"),
    call(SYS_pread64, "cutting it: what is kept"),
    call(SYS_pwrite64, "the same, to its start"),
    call(SYS_ftruncate, "the same, its new length"),
];

/// Threads begin with the filter of the one that made them, and add their own: so this one may do what they may.
const SPAWNER: &[Call] = &[
    limited(
        SYS_clone,
        Only::OneOf(0, &[THREAD]),
        "making a thread, and neither a process nor a namespace",
    ),
    call(SYS_set_robust_list, "a thread's beginning"),
    call(SYS_rseq, "a thread's beginning"),
    limited(
        SYS_prctl,
        Only::OneOf(
            0,
            &[
                int!(PR_SET_NAME),
                int!(PR_SET_NO_NEW_PRIVS),
                int!(PR_SET_VMA),
            ],
        ),
        "a thread's name; no_new_privs once more, before its filter; glibc's malloc",
    ),
    limited(
        SYS_seccomp,
        Only::Both(
            &Only::OneOf(0, &[SET_MODE_FILTER]),
            &Only::OneOf(1, &[(0, "no flags")]),
        ),
        "a new thread's own filter",
    ),
    limited(
        SYS_sched_setaffinity,
        Only::OneOf(0, &[ITSELF]),
        "a new thread's CPU (--pin)",
    ),
];

/// A process that only waits ([`crate::attendant`]). Nothing of [`COMMON`]: it neither allocates nor logs.
const HOLDER: &[Call] = &[
    limited(
        SYS_write,
        Only::OneOf(0, &[int!(STDOUT_FILENO)]),
        "its maker hears that it is ready",
    ),
    limited(
        SYS_close,
        Only::OneOf(0, &[int!(STDOUT_FILENO)]),
        "nothing more is said",
    ),
    call(SYS_ppoll, "waiting for its maker's end"),
    call(SYS_restart_syscall, "the kernel's, after a stop (SIGSTOP)"),
    call(SYS_exit_group, "the end"),
];

/// One that removes a cgroup at the end.
const REMOVER: &[Call] = &[
    limited(
        SYS_unlinkat,
        Only::Both(
            &Only::OneOf(0, &[(REMOVERS_PARENT, "the directory that it holds")]),
            &Only::OneOf(2, &[int!(AT_REMOVEDIR)]),
        ),
        "removing an empty cgroup",
    ),
    call(SYS_clock_nanosleep, "until the kernel has emptied it"),
];

/// Standard error's number, which is free there.
const REMOVERS_PARENT: u64 = unsigned(libc::STDERR_FILENO);

/// All that such a process may do.
pub(super) fn of_attendant(kind: AttendantKind) -> Vec<Call> {
    match kind {
        AttendantKind::Holder => HOLDER.to_vec(),
        AttendantKind::Remover => [HOLDER, REMOVER].concat(),
    }
}

/// What threads of that kind may do besides [`COMMON`].
pub(super) fn own(kind: ThreadKind) -> Vec<Call> {
    let calls = match kind {
        ThreadKind::Main => MAIN,
        ThreadKind::Vcpu => VCPU,
        ThreadKind::Net => NET,
        ThreadKind::NetControl => NET_CONTROL,
        ThreadKind::Blk => BLK,
        ThreadKind::Rng => RNG,
        ThreadKind::Console => CONSOLE,
        ThreadKind::ConsoleOutput => CONSOLE_OUTPUT,
        ThreadKind::Spawner => {
            // What those may do whom it makes.
            let made = [NET, NET_CONTROL, BLK, RNG].concat();
            let mut calls = SPAWNER.to_vec();
            for call in made {
                if calls.iter().all(|it| it.number != call.number) {
                    calls.push(call);
                }
            }
            return calls;
        }
    };
    calls.to_vec()
}

/// All that threads of that kind may do: each call once, as its own table has it if it is in both.
pub(super) fn all(kind: ThreadKind) -> Vec<Call> {
    let mut calls = own(kind);
    for common in COMMON {
        if calls.iter().all(|it| it.number != common.number) {
            calls.push(*common);
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use kvm_bindings::{kvm_ioeventfd, kvm_irq_routing, kvm_mp_state, kvm_regs, kvm_vcpu_events};

    use super::*;

    /// As `_IOC` of asm-generic/ioctl.h puts it together.
    fn ioctl(direction: u64, number: u64, size: usize) -> u64 {
        direction << 30 | (size as u64) << 16 | 0xae << 8 | number
    }

    #[test]
    fn the_numbers_of_kvms_ioctls_are_right() {
        const NONE: u64 = 0;
        const WRITE: u64 = 1;
        const READ: u64 = 2;
        for (value, right) in [
            (KVM_RUN, ioctl(NONE, 0x80, 0)),
            (KVM_GET_REGS, ioctl(READ, 0x81, size_of::<kvm_regs>())),
            (
                KVM_GET_MP_STATE,
                ioctl(READ, 0x98, size_of::<kvm_mp_state>()),
            ),
            (
                KVM_GET_VCPU_EVENTS,
                ioctl(READ, 0x9f, size_of::<kvm_vcpu_events>()),
            ),
            (
                KVM_IOEVENTFD,
                ioctl(WRITE, 0x79, size_of::<kvm_ioeventfd>()),
            ),
            (
                KVM_SET_GSI_ROUTING,
                ioctl(WRITE, 0x6a, size_of::<kvm_irq_routing>()),
            ),
        ] {
            assert_eq!(value.0, right, "{}", value.1);
        }
    }
}
