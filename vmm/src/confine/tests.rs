//! What filters do to the process that has them: this binary runs itself again, once for each.
#![expect(
    unsafe_code,
    reason = "system calls that nothing else here makes, and their arguments"
)]

use std::{
    env,
    io::Write as _,
    os::unix::process::ExitStatusExt,
    process::{Command, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use devices::{
    placement::Placement,
    threads::{NewThread, ThreadKind as DeviceThread, ThreadMaker},
};

use super::{ConfineConfig, Confinement, Filters, ThreadKind, trap};

const VARIABLE: &str = "RINGWIRE_TEST_CONFINED";

/// Runs `role` in a process of its own.
fn child(role: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "confine::tests::in_the_child", "--nocapture"])
        .args(["--test-threads=1"])
        .env(VARIABLE, role)
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the child does. Does nothing in other test runs.
#[test]
fn in_the_child() {
    let Ok(role) = env::var(VARIABLE) else { return };
    let role = role.as_str();
    if let Some(kind) = ThreadKind::ALL.into_iter().find(|it| it.names() == role) {
        let filters = Filters::new().unwrap();
        trap::install().unwrap();
        let thread = thread::spawn(move || {
            // As all threads have it.
            Confinement::default().refuse().unwrap();
            filters.enter(kind, "thread7").unwrap();
            live();
            tell_the_time();
            // SAFETY: has no arguments.
            unsafe { libc::syscall(libc::SYS_getppid) };
            println!("still there");
        });
        thread.join().unwrap();
        return;
    }
    if let Some(what) = role.strip_prefix("the spawner: ") {
        let filters = Filters::new().unwrap();
        trap::install().unwrap();
        let what = what.to_owned();
        let thread = thread::spawn(move || {
            filters.enter(ThreadKind::Spawner, "spawner").unwrap();
            as_spawner(&what);
            println!("\n> fine");
        });
        thread.join().unwrap();
        return;
    }
    let confinement = Arc::new(Confinement::default());
    confinement.begin(ConfineConfig::default()).unwrap();
    confinement.enter(ThreadKind::Main, "main").unwrap();
    match role {
        "a life" => whole_life(&confinement),
        "a panic" => {
            let made = make(&confinement, || panic!("for the test"));
            assert!(made.join().is_err());
        }
        "an abort" => std::process::abort(),
        "a crash" => {
            // SAFETY: nothing is there, which is the point.
            unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
        }
        "a file" => {
            let refused = std::fs::File::open("/proc/self/status").unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        }
        "code" => {
            // SAFETY: no memory of ours is touched.
            let result = unsafe {
                let (rwx, flags) = (
                    libc::PROT_READ | libc::PROT_EXEC,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                );
                libc::mmap(std::ptr::null_mut(), 4096, rwx, flags, -1, 0)
            };
            println!("{result:?}");
        }
        "another process" => {
            // SAFETY: signal 0 asks only.
            unsafe { libc::syscall(libc::SYS_tgkill, 1, 1, 0) };
        }
        _ => panic!("{role}?"),
    }
    println!("\n> fine");
}

/// Under the spawner's filter.
fn as_spawner(what: &str) {
    let clone = |flags: i32| {
        // SAFETY: no memory is shared with the child, if there is one after all, which does nothing but end.
        let made = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if made == 0 {
            // SAFETY: has no arguments of memory.
            unsafe { libc::syscall(libc::SYS_exit_group, 0) };
        }
    };
    match what {
        "a thread" => thread::spawn(live).join().unwrap(),
        "clone3" => {
            // SAFETY: no arguments are handed over, for which the kernel has an error.
            let result = unsafe { libc::syscall(libc::SYS_clone3, 0, 0) };
            let error = std::io::Error::last_os_error();
            assert_eq!((result, error.raw_os_error()), (-1, Some(libc::ENOSYS)));
        }
        "a process" => clone(libc::SIGCHLD),
        "a process that is waited for" => clone(libc::CLONE_VFORK | libc::SIGCHLD),
        "a namespace" => clone(libc::CLONE_NEWUSER | libc::SIGCHLD),
        "the CPUs of another one" => {
            // SAFETY: there is no memory to read.
            unsafe { libc::syscall(libc::SYS_sched_setaffinity, 1, 0, 0) };
        }
        "a filter's listener" => {
            let (mode, listener) = (
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            );
            // SAFETY: there is no memory to read.
            unsafe { libc::syscall(libc::SYS_seccomp, mode, listener, 0) };
        }
        _ => panic!("{what}?"),
    }
}

fn make(confinement: &Confinement, work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    let thread = NewThread {
        kind: DeviceThread::Rng,
        name: "rng7".to_owned(),
        placement: Placement::default(),
        work: Box::new(work),
    };
    confinement.make(thread).unwrap()
}

/// What any thread may do.
fn live() {
    // Through glibc's malloc in all its ways, a heap of the thread's own included.
    let mut vectors: Vec<Vec<u8>> = (0..200).map(|i| vec![1; i * 1000]).collect();
    vectors
        .iter_mut()
        .for_each(|it| it.extend(vec![2; 1 << 20]));
    drop(vectors);
    let map: std::collections::HashMap<_, _> = (0..10).map(|i| (i, i)).collect();
    assert_eq!(map.len(), 10);
    thread::sleep(Duration::from_millis(1));
    thread::yield_now();
    assert!(Instant::now().elapsed() < Duration::from_secs(3600));
    eprintln!("a log line");
}

fn whole_life(confinement: &Arc<Confinement>) {
    for _ in 0..20 {
        let (put, take) = std::sync::mpsc::channel();
        let made = make(confinement, move || {
            let mut memory = vec![0u8; 1 << 20];
            memory.extend(vec![1; 1 << 20]);
            put.send(memory.len()).unwrap();
        });
        assert_eq!(take.recv().unwrap(), 2 << 20);
        made.join().unwrap();
    }
    confinement.end();
    let refused = confinement.make(NewThread {
        kind: DeviceThread::Rng,
        name: "late".to_owned(),
        placement: Placement::default(),
        work: Box::new(|| {}),
    });
    assert!(refused.is_err());
}

fn tell_the_time() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    println!("\nat {}", now.as_nanos());
    let _ = std::io::stdout().flush();
}

#[test]
fn a_forbidden_call_on_each_kind_of_thread_ends_the_process_with_a_sentence() {
    for kind in ThreadKind::ALL {
        let output = child(kind.names());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(7), "{kind}: {output:?}");
        assert!(
            said.contains(
                "\nringwire: the thread thread7 made the system call getppid (110), which"
            ),
            "{kind}: {said}"
        );
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(!out.contains("still there"), "{kind}: {out}");
        // Not asserted: it is on record.
        let (_, at) = out.split_once("\nat ").unwrap();
        let at: u128 = at.trim().parse().unwrap();
        let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        println!(
            "{kind}: ended {} us after the call",
            (ended.as_nanos() - at) / 1000
        );
    }
}

#[test]
fn what_a_vm_does_is_allowed() {
    for role in ["a life", "a file"] {
        let output = child(role);
        assert!(output.status.success(), "{role}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("> fine"),
            "{role}: {output:?}"
        );
    }
}

#[test]
fn panics_aborts_and_crashes_end_as_ever() {
    let output = child("a panic");
    assert!(output.status.success(), "{output:?}");
    let said = stderr(&output);
    assert!(
        said.contains("for the test") && said.contains("stack backtrace"),
        "{said}"
    );
    for (role, signal) in [("an abort", libc::SIGABRT), ("a crash", libc::SIGSEGV)] {
        let output = child(role);
        assert_eq!(output.status.signal(), Some(signal), "{role}: {output:?}");
    }
}

#[test]
fn arguments_count() {
    for (role, call) in [("code", "mmap (9)"), ("another process", "tgkill (234)")] {
        let output = child(role);
        let sentence = format!("the thread main made the system call {call}");
        assert_eq!(output.status.code(), Some(7), "{role}: {output:?}");
        assert!(stderr(&output).contains(&sentence), "{role}: {output:?}");
    }
}

#[test]
fn the_spawner_makes_threads_and_neither_processes_nor_namespaces() {
    for what in ["a thread", "clone3"] {
        let output = child(&format!("the spawner: {what}"));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("\n> fine"), "{what}: {output:?}");
    }
    for (what, call) in [
        ("a process", "clone (56)"),
        ("a process that is waited for", "clone (56)"),
        ("a namespace", "clone (56)"),
        ("the CPUs of another one", "sched_setaffinity (203)"),
        ("a filter's listener", "seccomp (317)"),
    ] {
        let output = child(&format!("the spawner: {what}"));
        let sentence = format!("the thread spawner made the system call {call}");
        assert_eq!(output.status.code(), Some(7), "{what}: {output:?}");
        assert!(stderr(&output).contains(&sentence), "{what}: {output:?}");
    }
}
