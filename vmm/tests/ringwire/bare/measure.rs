//! What zero-copy transmit is worth: run by hand.

use std::{fs, thread, time::Duration};

use super::{Far, Process, Value, Wire, can_run, start};

/// Pairs of runs for each size, the one with copies first and second by turns.
const ROUNDS: usize = 10;

/// One run.
#[derive(Debug)]
struct Run {
    /// Frames a second.
    rate: f64,
    /// Nanoseconds of processor time that the io-thread took for a frame.
    cost: f64,
}

impl Run {
    fn new(size: usize, zero_copy: bool) -> Self {
        let wire = Wire::new();
        // Frames that nobody takes: the wire's far end drops them early.
        let _far = Far::new(&wire, 1);
        let option = if zero_copy { ",zero-copy-tx=on" } else { "" };
        let words = format!("mode=tx size={size} seconds=2");
        let mut guest = start(&wire, option, &words);
        let mut cpu = 0;
        while !guest.has_ended() {
            cpu = cpu_time(&guest, "net0").unwrap_or(cpu);
            thread::sleep(Duration::from_millis(2));
        }
        let end = guest.finish();
        assert_eq!(end.code(), 0, "{end:?}");
        let report: Value = serde_json::from_str(&end.stdout).unwrap();
        let number = |name: &str| report[name].as_f64().unwrap();
        let packets = number("packets");
        Self {
            rate: packets / (number("cycles") / number("tsc_khz") / 1000.0),
            cost: cpu as f64 / packets,
        }
    }
}

/// Nanoseconds that a thread of the process has run (`schedstat`).
fn cpu_time(process: &Process, name: &str) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).ok()?;
    let mut tasks = tasks.flatten().map(|task| task.path());
    let task = tasks.find(|task| {
        let comm = fs::read_to_string(task.join("comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    })?;
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// The median, the least and the most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    (values[values.len() / 2], values[0], values[last])
}

#[test]
#[ignore = "takes minutes, for docs/figures.md"]
fn measure_zero_copy_transmit() {
    if !can_run() {
        return;
    }
    let mut lines = Vec::new();
    for size in [64, 256, 512, 1514] {
        let (mut rates, mut costs, mut copied) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let first = round % 2 == 0;
            let (one, other) = (Run::new(size, !first), Run::new(size, first));
            let (copy, in_place) = if first { (one, other) } else { (other, one) };
            rates.push(in_place.rate / copy.rate);
            costs.push(in_place.cost / copy.cost);
            copied.push(copy.cost);
        }
        let (rate, rate_min, rate_max) = spread(rates);
        let (cost, cost_min, cost_max) = spread(costs);
        lines.push(format!(
            "{size} B: rate x {rate:.2} ({rate_min:.2} to {rate_max:.2}), processor time x {cost:.2} \
             ({cost_min:.2} to {cost_max:.2}) of {:.0} ns a frame",
            spread(copied).0
        ));
    }
    println!("{}", lines.join("\n"));
}
