//! `ringwire`: the command.

use std::{
    io::{self, IsTerminal},
    panic,
    process::ExitCode,
};

use clap::Parser;
use tracing::Level;
use vmm::{
    NetdevReport, Vm,
    cli::{CheckTarget, Cli, Command, RunArgs},
    exit::Status,
    probe::{self, Verdict},
    signals::Signals,
    terminal,
};

fn main() -> ExitCode {
    // Clap itself ends with `Status::Usage`.
    let cli = Cli::parse();
    start_log(cli.verbose);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // The message must be legible, and a dead VMM must not leave a raw terminal.
        terminal::restore();
        eprintln!("ringwire: a bug in ringwire ended it:");
        hook(info);
    }));
    match cli.command {
        Command::Run(arguments) => run(*arguments),
        Command::Check {
            what: CheckTarget::Kvm,
        } => check_kvm(),
    }
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => Level::WARN,
        1 => Level::INFO,
        _ => Level::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// The one sentence about an end that was not meant.
fn fail(status: u8, sentence: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("ringwire: {sentence}");
    ExitCode::from(status)
}

fn run(arguments: RunArgs) -> ExitCode {
    let config = match arguments.config() {
        Ok(config) => config,
        Err(e) => return fail(Status::Usage as u8, &e),
    };
    // Before anything is built, so that a signal never interrupts half of it.
    let signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => {
            let sentence = format!("could not listen for signals: {e}");
            return fail(Status::Startup as u8, &sentence);
        }
    };
    let mut vm = match Vm::new(&config) {
        Ok(vm) => vm,
        Err(e) => return fail(Status::Startup as u8, &e),
    };
    vm.end_on(signals);
    let report = vm.run();
    log_netdevs(&report.netdevs);
    if report.reason.is_success() {
        tracing::info!("{}", report.reason);
        return ExitCode::SUCCESS;
    }
    fail(report.reason.status(), &report.reason)
}

/// What the network cards did, one line each; a frame that went astray is a bug of ours.
fn log_netdevs(netdevs: &[NetdevReport]) {
    let list = |counters: &mut dyn Iterator<Item = (&'static str, u64)>| {
        let words = counters.map(|(name, count)| format!(" {name}={count}"));
        words.collect::<String>()
    };
    for netdev in netdevs {
        let id = &netdev.id;
        let counters = list(&mut netdev.counters.named());
        tracing::info!("netdev '{id}': guest:{counters}");
        for backend in &netdev.backends {
            let counters = list(&mut backend.counters.iter().copied());
            tracing::info!("netdev '{id}': {}:{counters}", netdev.ifname);
        }
        if !netdev.frames_add_up() {
            tracing::error!(
                "netdev '{id}': frames went astray, a bug in ringwire: {:?}",
                netdev.backends
            );
        }
    }
}

fn check_kvm() -> ExitCode {
    match probe::kvm() {
        Ok(Verdict::CanBoot) => {
            println!("kvm: yes, this host's KVM can boot Linux");
            ExitCode::SUCCESS
        }
        Ok(Verdict::Lacks { instruction, what }) => {
            println!(
                "kvm: no, this host's KVM can't boot Linux: it fails at {instruction}: {what}"
            );
            ExitCode::FAILURE
        }
        Err(e) => {
            println!("kvm: no: {e}");
            ExitCode::FAILURE
        }
    }
}
