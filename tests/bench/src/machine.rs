//! Where the figures are from.

use std::{fs, process::Command};

use serde_json::{Value, json};

/// What says what figures are worth.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// The CPU's own name.
    pub(crate) cpu: String,
    /// How many.
    pub(crate) cores: usize,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Whether the CPU says that it is virtual, or the emulated host of tests/lab.
    pub(crate) kind: &'static str,
    /// UTC.
    pub(crate) date: String,
    /// The commit of this tree, with `+` if files differ from it.
    pub(crate) commit: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|it| it.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib =
            field(&meminfo, "MemTotal").and_then(|it| it.trim_end_matches(" kB").parse().ok());
        let flags = field(&cpuinfo, "flags").unwrap_or_default();
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
            cores: cpuinfo
                .lines()
                .filter(|it| it.starts_with("processor"))
                .count(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "unknown".into(), |it| it.trim().to_owned()),
            memory: kib.unwrap_or(0u64) * 1024,
            kind: kind(&flags),
            date: printed("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            commit: printed("git", &["describe", "--always", "--dirty=+"]),
        }
    }

    /// For the JSON file.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "cpu": self.cpu, "cores": self.cores, "kind": self.kind, "kernel": self.kernel,
            "memory_bytes": self.memory, "date": self.date, "commit": self.commit,
        })
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} cores of {} ({}), {} GiB, Linux {}; {}, commit {}",
            self.cores,
            self.cpu,
            self.kind,
            self.memory.div_ceil(1 << 30),
            self.kernel,
            self.date,
            self.commit
        )
    }
}

fn kind(flags: &str) -> &'static str {
    if std::env::var_os("RINGWIRE_LAB").is_some() {
        "the lab, an emulated host"
    } else if flags.split_whitespace().any(|it| it == "hypervisor") {
        "a virtual machine"
    } else {
        "a physical machine"
    }
}

/// What a program prints; "unknown" if it does not.
fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.ok().filter(|it| it.status.success());
    let text = text.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    text.filter(|it| !it.is_empty())
        .unwrap_or_else(|| "unknown".into())
}
