//! Who can make the three crates say something: every line of the source that logs is here, with the reason why
//! nobody can fill a disk by it. A new one without an entry fails. Needs nothing, so it runs with every `cargo test`.
//!
//! The `ringwire` command has a limit for each of these places besides (`vmm/src/log/limit.rs`); who embeds the crates
//! relies on this alone.

#![expect(clippy::unwrap_used, reason = "a panic is the failure report")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Why a line does not come again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// While the VM, or a port, is made.
    Start,
    /// When it ends, or what it has of the host goes.
    End,
    /// Once, as what it says can't happen again.
    Once,
    /// The user asks for it, by a signal.
    Asked,
    /// The source has a limit, right before it: `count()` of a `Quiet`, `pass()` of a `LogLimit`, a power of two.
    Limited,
}

use Why::{Asked, End, Limited, Once, Start};

/// The file, how many lines of that kind it has, and why.
const PLACES: &[(&str, usize, Why)] = &[
    ("devices/src/pci/config.rs", 1, Limited),
    ("devices/src/placement.rs", 1, Limited),
    ("devices/src/virtio/blk/image.rs", 3, Start),
    ("devices/src/virtio/blk/request.rs", 1, Limited),
    ("devices/src/virtio/net/carrier.rs", 1, Limited),
    ("devices/src/virtio/net/config.rs", 1, Start),
    ("devices/src/virtio/net/control.rs", 2, Limited),
    ("devices/src/virtio/net/device.rs", 1, Limited),
    ("devices/src/virtio/net/worker.rs", 1, Limited),
    ("devices/src/virtio/requests.rs", 1, Limited),
    ("devices/src/virtio/state/live.rs", 1, Limited),
    ("devices/src/virtio/worker.rs", 1, Limited),
    ("net-afxdp/src/bpf.rs", 1, End),
    ("net-afxdp/src/interface.rs", 1, Start),
    ("net-afxdp/src/kind.rs", 1, Start),
    ("net-afxdp/src/libxdp.rs", 1, Start),
    ("net-afxdp/src/multi_buffer.rs", 2, Start),
    ("net-afxdp/src/plugin.rs", 1, Start),
    ("net-afxdp/src/port.rs", 2, Start),
    // And what libbpf says, which is asked to load and to attach only.
    ("net-afxdp/src/program.rs", 2, Start),
    ("net-afxdp/src/probe/notes.rs", 1, Start),
    ("net-afxdp/src/promiscuous.rs", 1, Start),
    ("net-afxdp/src/queue/mod.rs", 2, End),
    ("net-afxdp/src/rss.rs", 1, Start),
    ("net-afxdp/src/socket.rs", 2, Start),
    ("net-afxdp/src/steering.rs", 1, Start),
    ("net-afxdp/src/uapi.rs", 1, End),
    ("net-afxdp/src/umem.rs", 1, End),
    ("net-afxdp/src/xskmap.rs", 1, End),
    ("vmm/src/builder.rs", 1, Start),
    ("vmm/src/builder.rs", 1, Limited),
    // Input that failed is at its end.
    ("vmm/src/console.rs", 1, Once),
    // A write that failed, a reader that stalls and one that takes again.
    ("vmm/src/console/output.rs", 3, Limited),
    ("vmm/src/console/output.rs", 1, End),
    ("vmm/src/jail.rs", 1, Start),
    ("vmm/src/jail/cgroup.rs", 1, End),
    ("vmm/src/log.rs", 1, End),
    ("vmm/src/main.rs", 1, Start),
    ("vmm/src/main.rs", 3, End),
    ("vmm/src/memory/transparent.rs", 1, Start),
    ("vmm/src/network.rs", 5, Start),
    // The monitor is given up.
    ("vmm/src/network/watch.rs", 1, Once),
    ("vmm/src/network/watch.rs", 12, Limited),
    ("vmm/src/open.rs", 1, Start),
    ("vmm/src/open/inherited.rs", 1, Start),
    ("vmm/src/pci/kicks.rs", 2, Limited),
    ("vmm/src/pci/routes.rs", 1, Limited),
    ("vmm/src/vm.rs", 2, Start),
    ("vmm/src/vm.rs", 1, Asked),
];

/// What begins a log line.
const MACROS: [&str; 6] = ["trace!", "debug!", "info!", "warn!", "error!", "event!"];
/// What goes past the log, to streams that nobody may read.
const PRINTS: [&str; 5] = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
/// What says that there is a limit, and how many lines before the log line it may be.
const LIMITS: [&str; 3] = [".count()", ".pass()", ".is_power_of_two()"];
const NEAR: usize = 50;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The sources of a crate that are built for users.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "testing" {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs")
            && !name.ends_with("tests.rs")
            && !path.ends_with("sabotage.rs")
        {
            found.push(path);
        }
    }
}

/// The lines of a source without its tests and comments.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines();
    lines
        .map(|line| line.split("//").next().unwrap().to_owned())
        .collect()
}

fn has(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|it| it.is_alphanumeric() || it == '_')
    })
}

/// Each place that logs: whether there is a limit before it, in the same function.
fn places(lines: &[String]) -> Vec<bool> {
    let mut places = vec![];
    for (at, line) in lines.iter().enumerate() {
        if !MACROS.iter().any(|name| has(line, name)) {
            continue;
        }
        let before = lines[at.saturating_sub(NEAR)..=at].iter().rev();
        let function: Vec<_> = before.take_while(|line| !has(line, "fn ")).collect();
        places.push(
            function
                .iter()
                .any(|line| LIMITS.iter().any(|limit| line.contains(limit))),
        );
    }
    places
}

#[test]
fn every_log_line_is_of_the_start_or_the_end_or_has_a_limit() {
    let mut files = vec![];
    for name in ["net-afxdp", "devices", "vmm"] {
        sources(&top().join(name).join("src"), &mut files);
    }
    assert!(files.len() > 100, "{}", files.len());
    let mut wrong = vec![];
    let mut seen = 0;
    for path in files {
        let name = path.strip_prefix(top()).unwrap().to_str().unwrap();
        let found = places(&lines(&path));
        let entries = || PLACES.iter().filter(|(file, ..)| *file == name);
        let known: usize = entries().map(|(_, count, _)| count).sum();
        let limited = entries().filter(|(.., why)| *why == Limited);
        let limited: usize = limited.map(|(_, count, _)| count).sum();
        if found.len() != known {
            wrong.push(format!("{name}: {} log lines, {known} known", found.len()));
        }
        let with_limit = found.iter().filter(|it| **it).count();
        if with_limit < limited {
            wrong.push(format!(
                "{name}: {with_limit} log lines have a limit before them, not {limited}"
            ));
        }
        seen += found.len();
    }
    let all: usize = PLACES.iter().map(|(_, count, _)| count).sum();
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(seen, all, "an entry whose file is gone");
}

/// Nothing goes past the log: a stream that nobody reads would be waited for.
#[test]
fn nothing_is_printed_past_the_log() {
    let mut files = vec![];
    for name in ["net-afxdp", "devices", "vmm"] {
        sources(&top().join(name).join("src"), &mut files);
    }
    for path in files {
        for line in lines(&path) {
            let print = PRINTS.iter().find(|name| has(&line, name));
            assert_eq!(print, None, "{}: {line}", path.display());
        }
    }
}

#[test]
fn places_are_found_with_and_without_a_limit() {
    let text = "
fn a() {
    if x.count() {
        tracing::warn!(\"a\");
    }
    tracing::info!(
        \"b\"
    );
}
fn b() {
    debug!(\"c\"); my_warn!(\"d\");
}";
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    assert_eq!(places(&lines), [true, true, false]);
}
