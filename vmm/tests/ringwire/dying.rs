//! Threads that die in a running process: the whole VM ends and says why, and the interface is clean (catalogue 57). In
//! builds with debug assertions, which have the hook for it (`devices/src/sabotage.rs`). Needs root.

use crate::{
    bare::program,
    process::{Process, run},
    wire::{Wire, can_run},
};

/// Status of a host's failure.
const HOST: i32 = 6;

/// Has a thread die while the guest sends over two queue pairs, or begins to; what must be said.
fn dies(thread: &str, how: &str, turn: u32, sentence: &str) {
    let wire = Wire::with_queues(2);
    let netdev = format!("af-xdp,ifname={},queues=2", wire.name);
    let words = "acpi=off mode=tx pairs=2 seconds=300";
    let arguments = ["-v", "--netdev", &netdev, "--cmdline", words];
    let mut command = run(&program("traffic"), &arguments);
    let sabotage = format!("{thread}:{how}:{turn}");
    command.env("RINGWIRE_TEST_SABOTAGE", sabotage);
    let end = Process::start(&mut command).finish();
    assert_eq!(end.code(), HOST, "{thread}, {how}: {end:?}");
    let said = format!("ringwire: {sentence}");
    assert!(end.stderr.contains(&said), "{thread}, {how}: {end:?}");
    let panicked = end.stderr.contains("a bug in ringwire ended it");
    assert_eq!(panicked, how == "panic", "{end:?}");
    // A dead io-thread's queues come back, so that all frames can be counted.
    let counted = end.stderr.contains("frames_total=");
    assert!(counted || !thread.starts_with("net"), "{end:?}");
    assert!(!end.stderr.contains("don't add up"), "{end:?}");
    wire.assert_clean();
}

fn can_sabotage() -> bool {
    if !cfg!(debug_assertions) {
        println!("SKIPPED: a build without debug assertions has no sabotage");
    }
    cfg!(debug_assertions) && can_run()
}

/// 57
#[test]
fn an_io_thread_that_dies_ends_the_vm() {
    if !can_sabotage() {
        return;
    }
    for (how, what) in [("panic", "panicked"), ("error", "can't go on")] {
        // The first pair in the middle of its work, the further one, and the control queue at its first turn.
        for (thread, turn) in [("net0", 20), ("net0.1", 10), ("net0.ctrl", 1)] {
            let sentence = format!("the io-thread {thread} {what}: sabotage, as a test wants it");
            dies(thread, how, turn, &sentence);
        }
    }
}

/// 57: the same for threads that are none of a device.
#[test]
fn any_other_thread_that_panics_ends_the_vm() {
    if !can_sabotage() {
        return;
    }
    let bug = "panicked, a bug in ringwire";
    let vcpu = format!("the thread of vCPU 0 {bug}: sabotage, as a test wants it");
    dies("vcpu0", "panic", 50, &vcpu);
    let console = format!("the console's thread {bug}");
    dies("console", "panic", 1, &console);
    let output = format!("the thread of the console's output {bug}");
    dies("console.out", "panic", 1, &output);
    let main = format!("the control loop {bug}: sabotage, as a test wants it");
    dies("main", "panic", 1, &main);
}
