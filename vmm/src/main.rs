//! `ringwire`: the command.

mod heap;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env,
    ffi::OsString,
    fmt::Arguments,
    io::{self, Write},
    panic::{self, PanicHookInfo},
    process::ExitCode,
    thread,
};

use clap::Parser;
use serde_json::json;
use vmm::{
    NetdevReport, Vm, check,
    cli::{
        Cli, Command, RunArgs,
        check::{CheckArgs, CheckTarget},
        jail::JailArgs,
        open::OpenArgs,
    },
    config::{NetdevConfig, VmConfig},
    exit::Status,
    jail::{self, End, Jailed},
    log,
    probe::{self, Verdict},
    signals::Signals,
    terminal,
};

fn main() -> ExitCode {
    heap::use_one();
    // Clap itself ends with `Status::Usage`.
    let cli = Cli::parse_from(without_separator(env::args_os()));
    log::start(cli.verbose);
    panic::set_hook(Box::new(|info| {
        // The message must be legible, and a dead VMM must not leave a raw terminal.
        terminal::restore();
        log::say(&panicked(info));
    }));
    let status = command(cli.command);
    log::finish();
    status
}

fn command(command: Command) -> ExitCode {
    match command {
        Command::Run(arguments) => run(*arguments),
        Command::Open(arguments) => open(arguments),
        Command::Jail(arguments) => jail(arguments),
        Command::Check(arguments) => match arguments.target() {
            Ok(CheckTarget::Kvm) => check_kvm(arguments.json),
            Ok(CheckTarget::Netdev(netdev)) => check_netdev(&netdev, &arguments),
            Err(e) => fail(Status::Usage as u8, &e),
        },
    }
}

/// What std's own hook says, but nobody waits for whoever reads it.
fn panicked(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("?").to_owned();
    let mut text = format!("a bug in ringwire ended it:\nthread '{name}' {info}");
    // Shown if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("\nstack backtrace:\n{backtrace}"));
    }
    text
}

/// Before a jail's `run` there may be a `--`, as there is before the command of `ringwire open`.
fn without_separator(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.collect();
    let separator = arguments.iter().position(|it| it == "--");
    if let Some(at) = separator
        && arguments[..at].iter().any(|it| it == "jail")
        && arguments.get(at + 1).is_some_and(|it| it == "run")
    {
        arguments.remove(at);
    }
    arguments
}

/// The one sentence about an end that was not meant.
fn fail(status: u8, sentence: &dyn std::fmt::Display) -> ExitCode {
    log::say(sentence);
    ExitCode::from(status)
}

fn run(arguments: RunArgs) -> ExitCode {
    // Before anything is built, so that a signal never interrupts half of it.
    let signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => {
            let sentence = format!("could not listen for signals: {e}");
            return fail(Status::Startup as u8, &sentence);
        }
    };
    log::own_streams();
    let config = match arguments.config() {
        Ok(config) => config,
        Err(e) => return fail(Status::Usage as u8, &e),
    };
    if config.confine.is_none() {
        tracing::warn!(
            "--confine off: the guest's device threads may do whatever the user may who started ringwire"
        );
    }
    run_vm(&config, signals)
}

fn run_vm(config: &VmConfig, signals: Signals) -> ExitCode {
    let mut vm = match Vm::new(config) {
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

/// Goes on as two processes: the VM's, in the jail, and one outside that waits for it.
fn jail(arguments: JailArgs) -> ExitCode {
    let request = match arguments.request() {
        Ok(request) => request,
        Err(e) => return fail(Status::Usage as u8, &e),
    };
    log::own_streams();
    match jail::enter(request) {
        Ok(Jailed::Inside { config, signals }) => run_vm(&config, signals),
        // It has said why itself.
        Ok(Jailed::Ended(End::Exited(status))) => ExitCode::from(status),
        Ok(Jailed::Ended(end @ End::Killed(number))) => fail(
            end.status(),
            &format!("the VM in the jail was killed by signal {number}"),
        ),
        Err(e) => fail(Status::Startup as u8, &e),
    }
}

/// Returns only if it fails.
fn open(arguments: OpenArgs) -> ExitCode {
    let request = match arguments.request() {
        Ok(request) => request,
        Err(e) => return fail(Status::Usage as u8, &e),
    };
    match vmm::open::open(&request) {
        Ok(never) => match never {},
        Err(e) => fail(Status::Startup as u8, &e),
    }
}

/// What the network cards did; a frame that went astray is a bug of ours.
fn log_netdevs(netdevs: &[NetdevReport]) {
    for netdev in netdevs {
        for line in netdev.lines() {
            tracing::info!("{line}");
        }
        if !netdev.frames_add_up() {
            tracing::error!(
                "netdev '{}': frames went astray, a bug in ringwire: {:?}",
                netdev.id,
                netdev.backends
            );
        }
    }
}

fn check_kvm(json: bool) -> ExitCode {
    let (works, sentence) = match probe::kvm() {
        Ok(Verdict::CanBoot) => (true, "yes, this host's KVM can boot Linux".to_owned()),
        Ok(Verdict::Lacks { instruction, what }) => (
            false,
            format!("no, this host's KVM can't boot Linux: it fails at {instruction}: {what}"),
        ),
        Err(e) => (false, format!("no: {e}")),
    };
    if json {
        say(format_args!(
            "{}\n",
            json!({ "works": works, "why": sentence })
        ));
    } else {
        say(format_args!("kvm: {sentence}\n"));
    }
    answer(works)
}

fn check_netdev(netdev: &NetdevConfig, arguments: &CheckArgs) -> ExitCode {
    match check::netdev(netdev, arguments.try_out) {
        Ok(check) => {
            if arguments.json {
                say(format_args!("{:#}\n", check.json()));
            } else {
                say(format_args!("{check}"));
            }
            answer(check.works())
        }
        Err(e) => fail(Status::Startup as u8, &e),
    }
}

/// To standard output. If nobody reads it, the exit status still answers.
fn say(text: Arguments<'_>) {
    let _ = io::stdout().write_fmt(text);
}

fn answer(works: bool) -> ExitCode {
    if works {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
