//! `ringwire-bench`: measures Ringwire beside others, in alternating rounds, on wires of its own.
//!
//! `make bench` and its like call it (tests/bench/bench); docs/bench/README.md says how to read what comes out.

mod case;
mod cli;
mod contestant;
mod cpu;
mod error;
mod exits;
mod footprint;
mod further;
mod lab;
mod machine;
mod measure;
mod report;
mod rounds;
mod stats;
mod suite;
mod syscalls;
mod tiny;
mod traffic;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let result = match cli::Cli::parse().command {
        cli::Command::Raw(args) => suite::raw(&args),
        cli::Command::Guest(args) => suite::guest(&args),
        cli::Command::Footprint(args) => footprint::run(&args),
        cli::Command::Lab(args) => lab::run(&args),
        cli::Command::Traffic(args) => traffic::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringwire-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
