//! Figures: how soon a guest runs, and what ringwire takes besides. Printed, never asserted.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    guest::Code,
    process::Process,
    wire::{Wire, can_run},
};

const ROUNDS: usize = 31;
/// KiB of the frames of a card with one queue.
const FRAMES: u64 = 4096 * 4;

/// The program to measure: a release build, if the environment names one.
fn program() -> PathBuf {
    let named = std::env::var_os("RINGWIRE_BIN");
    named.map_or_else(|| env!("CARGO_BIN_EXE_ringwire").into(), PathBuf::from)
}

/// KiB of a process besides guest memory, which is shared memory.
fn own_memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let of = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    of("RssAnon:") + of("RssFile:")
}

/// Milliseconds of processor time that all its threads have had.
fn cpu_time(id: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e6
}

/// From the start of the process to what the guest's first instructions print; processor time and memory until then.
fn round(arguments: &[String]) -> (Duration, f64, u64) {
    let kernel = Code::new().print("x").sleep().kernel();
    let mut command = Command::new(program());
    command.args(["run", "--memory", "512M", "--kernel"]);
    command.arg(kernel.as_path()).args(arguments);
    let started = Instant::now();
    let mut process = Process::start(&mut command);
    process.wait_for("x");
    let time = started.elapsed();
    (time, cpu_time(process.id()), own_memory(process.id()))
}

#[test]
#[ignore = "measures"]
fn start_and_memory() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let netdev = format!("--netdev af-xdp,ifname={}", wire.name);
    let cases = [
        ("no card, mmio", words("--transport mmio"), 0),
        ("no card, pci", words("--transport pci"), 0),
        ("a card, native mode", words(&netdev), FRAMES),
        (
            "a card, skb mode",
            words(&format!("{netdev},mode=skb")),
            FRAMES,
        ),
    ];
    let mut results = cases.each_ref().map(|_| Vec::new());
    // By turns, so that all meet the same machine.
    for _ in 0..ROUNDS {
        for ((_, arguments, _), results) in cases.iter().zip(&mut results) {
            results.push(round(arguments));
        }
    }
    for ((name, _, frames), results) in cases.iter().zip(&mut results) {
        results.sort_by_key(|result| result.0);
        let at = |index: usize| results[index].0.as_secs_f64() * 1e3;
        let memory = results.iter().map(|result| result.2).max().unwrap() - frames;
        let mut cpu: Vec<_> = results.iter().map(|result| result.1).collect();
        cpu.sort_by(f64::total_cmp);
        println!(
            "{name}: first output after {:.1} ms (median), {:.1} (least), {:.1} (most); {:.1} ms of CPU (median); own memory {:.1} MiB",
            at(ROUNDS / 2),
            at(0),
            at(ROUNDS - 1),
            cpu[ROUNDS / 2],
            memory as f64 / 1024.0
        );
    }
}
