#![expect(
    unsafe_code,
    reason = "moves the test's thread into a network namespace of its own"
)]
//! A network namespace and a veth pair for one test.

use std::{
    io::Write,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use net_afxdp::Interface;

/// A veth pair in a network namespace that only the calling thread is in, and the children that it
/// starts. It goes away with them, also when the test is killed.
pub(crate) struct Net {
    /// The end that the tests open.
    pub(crate) near: String,
    /// The other end.
    pub(crate) far: String,
}

impl Net {
    /// Both ends up, with that many queues. `None`, and a line that says so: not root.
    pub(crate) fn with_queues(queues: u32) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            let test = std::thread::current().name().unwrap_or("?").to_owned();
            skipped(&format!("{test}: making a network namespace needs root"));
            return None;
        }
        // SAFETY: affects the calling thread alone.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
        // No router solicitations among the test's frames.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("rwx{end}{}-{number}", std::process::id() % 100_000);
        let net = Self {
            near: name('n'),
            far: name('f'),
        };
        let (near, far) = (&net.near, &net.far);
        let count = format!("numrxqueues {queues} numtxqueues {queues}");
        ip(&format!(
            "link add {near} {count} type veth peer name {far} {count}"
        ));
        ip(&format!("link set dev {near} up"));
        ip(&format!("link set dev {far} up"));
        Some(net)
    }

    /// Both ends up, with one queue.
    pub(crate) fn new() -> Option<Self> {
        Self::with_queues(1)
    }

    /// The near end as it is now.
    pub(crate) fn interface(&self) -> Interface {
        Interface::by_name(&self.near).unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // It may have been deleted or renamed by the test; the namespace takes the rest along.
        let _ = Command::new("ip").args(["link", "del", &self.far]).output();
    }
}

/// The calling thread, which signals interrupt from now on.
pub(crate) struct Interruptible(libc::pid_t);

impl Interruptible {
    pub(crate) fn this_thread() -> Self {
        extern "C" fn nothing(_: libc::c_int) {}
        // SAFETY: all zeros are no flags, so no restart of what was interrupted, and an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        // SAFETY: the handler does nothing, and no other test uses this signal.
        let result =
            unsafe { libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()) };
        assert_eq!(result, 0);
        Self(rustix::thread::gettid().as_raw_nonzero().get())
    }

    pub(crate) fn interrupt(&self) {
        let process = rustix::process::getpid().as_raw_nonzero().get();
        // SAFETY: no pointers; the thread, if it has ended, is an error.
        unsafe { libc::syscall(libc::SYS_tgkill, process, self.0, libc::SIGUSR2) };
    }
}

/// Takes a program off whose link another one has, as `bpftool link detach` does. By the program's id:
/// interfaces of other network namespaces have the same indexes.
pub(crate) fn detach_link(program: u32) {
    use libbpf_rs::{libbpf_sys, query::LinkInfoIter};
    let mut links = LinkInfoIter::default().filter(|link| link.prog_id == program);
    let id = links.next().expect("a link").id;
    // SAFETY: no pointers.
    let fd = unsafe { libbpf_sys::bpf_link_get_fd_by_id(id) };
    assert!(fd >= 0, "link {id}: {fd}");
    // SAFETY: just opened, owned by nobody else.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the link is open.
    let result = unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) };
    assert_eq!(result, 0);
}

/// Gives the calling thread a view of mounts of its own.
pub(crate) fn unshare_mounts() {
    // SAFETY: affects the calling thread alone.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    let private = ["--make-rprivate", "/"];
    let status = Command::new("mount").args(private).status();
    assert!(status.expect("mount (util-linux)").success());
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .expect("ip (iproute2)");
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs `ip` with these words; whether that worked.
pub(crate) fn try_ip(words: &str) -> bool {
    Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .is_ok_and(|it| it.status.success())
}

/// Says what was not tested, and why. Past the test harness, which keeps what passing tests print.
pub(crate) fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}");
}

/// Whether this kernel has XDP_USE_SG (6.6), by its number.
pub(crate) fn kernel_is_new() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|it| it.parse::<u32>());
    let mut number = || numbers.next().unwrap().unwrap();
    (number(), number()) >= (6, 6)
}

/// As [`kernel_is_new`]; says what is skipped if not.
pub(crate) fn kernel_can() -> bool {
    let can = kernel_is_new();
    if !can {
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        skipped(&format!(
            "{test}: no frames of several chunks before Linux 6.6"
        ));
    }
    can
}
