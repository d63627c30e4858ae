//! Threads that die in a running process: the whole VM ends and says why, and the interface is clean (catalogue 57). In
//! builds with debug assertions, which have the hook for it (`devices/src/virtio/sabotage.rs`). Needs root.

use crate::{
    bare::program,
    process::{Process, run},
    wire::{Wire, can_run},
};

/// Status of a host's failure.
const HOST: i32 = 6;

/// Has an io-thread die while the guest sends over two queue pairs.
fn dies(thread: &str, how: &str, turn: u32, sentence: &str) {
    let wire = Wire::with_queues(2);
    let netdev = format!("af-xdp,ifname={},queues=2", wire.name);
    let words = "acpi=off mode=tx pairs=2 seconds=300";
    let arguments = ["-v", "--netdev", &netdev, "--cmdline", words];
    let mut command = run(&program("traffic"), &arguments);
    command.env("RINGWIRE_TEST_SABOTAGE", format!("{thread}:{how}:{turn}"));
    let end = Process::start(&mut command).finish();
    assert_eq!(end.code(), HOST, "{thread}, {how}: {end:?}");
    let said = format!("ringwire: the io-thread {thread} {sentence}: sabotage, as a test wants it");
    assert!(end.stderr.contains(&said), "{thread}, {how}: {end:?}");
    let panicked = end.stderr.contains("a bug in ringwire ended it");
    assert_eq!(panicked, how == "panic", "{end:?}");
    // The dead thread's queues came back, so that all frames could be counted.
    assert!(end.stderr.contains("frames_total="), "{end:?}");
    assert!(!end.stderr.contains("don't add up"), "{end:?}");
    wire.assert_clean();
}

/// 57
#[test]
fn an_io_thread_that_dies_ends_the_vm() {
    if !cfg!(debug_assertions) {
        println!("SKIPPED: a build without debug assertions has no sabotage");
        return;
    }
    if !can_run() {
        return;
    }
    for (how, sentence) in [("panic", "panicked"), ("error", "can't go on")] {
        // The first pair in the middle of its work, the further one, and the control queue at its first turn.
        dies("net0", how, 20, sentence);
        dies("net0.1", how, 10, sentence);
        dies("net0.ctrl", how, 1, sentence);
    }
}
