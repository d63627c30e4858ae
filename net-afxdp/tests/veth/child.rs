//! Tests whose subject is the process: this binary runs itself again for one of them.

use std::{
    env,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use net_afxdp::{Port, PortConfig, TxMetadata};
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, capabilities, set_capabilities},
};

use crate::{in_place, inject, user_namespace};

const VARIABLE: &str = "NET_AFXDP_TEST_CHILD";

/// What the child is to do, and with which interface.
pub(crate) fn start(role: &str, interface: &str) -> Child {
    start_under(&["env"], role, interface)
}

/// The same under `unshare` or the like.
pub(crate) fn start_under(wrapper: &[&str], role: &str, interface: &str) -> Child {
    Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "child::child", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, format!("{role} {interface}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The child's line that starts with `>`.
pub(crate) fn line(child: &mut Child) -> String {
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = output.lines().map_while(Result::ok);
    let line = lines.find_map(|line| line.strip_prefix("> ").map(str::to_owned));
    // Read to the end elsewhere, so that the child never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    line.expect("a line from the child")
}

/// Runs in the child only.
#[test]
fn child() {
    let Ok(task) = env::var(VARIABLE) else { return };
    let (role, interface) = task.split_once(' ').unwrap();
    let config = PortConfig {
        ifname: interface.to_owned(),
        ..PortConfig::default()
    };
    match role {
        "inject" => {
            let names: Vec<_> = interface.split(' ').collect();
            let tx_metadata = match names.get(2) {
                Some(_) => TxMetadata::On,
                None => TxMetadata::Off,
            };
            inject::run(names[0], names[1], tx_metadata);
        }
        "hold" => {
            let port = Port::open(&config).unwrap();
            println!("\n> open in {} mode", port.mode());
            std::thread::sleep(Duration::from_secs(600));
            drop(port);
        }
        "exit" => {
            let port = Port::open(&config).unwrap();
            println!("\n> open in {} mode", port.mode());
            // No destructor runs.
            std::process::exit(0);
        }
        "become-another" => {
            let prepared = net_afxdp::Prepared::open(&config).unwrap();
            prepared.let_children_keep_program().unwrap();
            println!("\n> prepared");
            let error = Command::new("sleep").arg("600").exec();
            panic!("{error}");
        }
        "probe-little-memory" => {
            little_memory(64 << 10);
            let probe = net_afxdp::Probe::of(&config).unwrap();
            let problem = probe.problems.iter().find(|problem| problem.blocks);
            println!("\n> {}", problem.unwrap().what);
        }
        "little-memory" => {
            little_memory(64 << 10);
            println!("\n> {}", Port::open(&config).unwrap_err());
        }
        "little-memory-in-place" => {
            little_memory(1 << 20);
            println!("\n> {}", in_place::refusal(&config));
        }
        "no-bpf" => {
            drop_capability(
                CapabilitySet::SYS_ADMIN | CapabilitySet::BPF | CapabilitySet::NET_ADMIN,
            );
            println!("\n> {}", Port::open(&config).unwrap_err());
        }
        "user-namespace" => {
            println!("\n> {}", user_namespace::probe(&config.ifname));
        }
        "bpf-token" => user_namespace::with_token(interface),
        "no-raw" => {
            drop_capability(CapabilitySet::NET_RAW);
            println!("\n> {}", Port::open(&config).unwrap_err());
        }
        _ => panic!("{role}?"),
    }
}

fn little_memory(bytes: u64) {
    let limit = Some(bytes);
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Memlock, limit).unwrap();
    drop_capability(CapabilitySet::IPC_LOCK);
}

fn drop_capability(which: CapabilitySet) {
    let mut sets = capabilities(None).unwrap();
    sets.effective -= which;
    sets.permitted -= which;
    sets.inheritable -= which;
    set_capabilities(None, sets).unwrap();
}
