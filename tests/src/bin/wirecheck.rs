//! `wirecheck`: sends traffic, or receives it and checks every byte. Runs in guests and in network namespaces.
//!
//! A receiver prints "listening" when it is ready, and one line of result. Status 0: all that arrived was right; 3: a byte
//! was wrong; 1: it broke off, or the amount is not what the other end says.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ringwire_tests::wirecheck::{CheckError, tcp, udp};

/// The status if a byte was wrong.
const WRONG: u8 = 3;

#[derive(Debug, Parser)]
#[command(about = "Traffic whose every byte is checked at the other end")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Seed of the contents; both ends need the same
    #[arg(long, default_value_t = 1, global = true)]
    seed: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send a TCP stream
    TcpSend {
        /// The receiver, as ADDRESS:PORT
        to: SocketAddr,
        /// Amount
        #[arg(long, default_value_t = 100_000_000)]
        bytes: u64,
        /// Send no more after so many seconds
        #[arg(long)]
        seconds: Option<u64>,
    },
    /// Receive one TCP stream
    TcpReceive {
        /// Where to listen, as ADDRESS:PORT
        at: SocketAddr,
    },
    /// Send UDP datagrams
    UdpSend {
        /// The receiver, as ADDRESS:PORT
        to: SocketAddr,
        /// How many
        #[arg(long, default_value_t = 10_000)]
        count: u64,
        /// Pause after this many (0: never)
        #[arg(long, default_value_t = 16)]
        burst: u64,
        /// Length of the pause, in microseconds
        #[arg(long, default_value_t = 2000)]
        gap: u64,
        /// Datagrams in one call, which the kernel or the card cuts: all of one size
        #[arg(long, default_value_t = 1)]
        together: u64,
        #[command(flatten)]
        sizes: Sizes,
    },
    /// Receive UDP datagrams until the sender tells the end
    UdpReceive {
        /// Where to listen, as ADDRESS:PORT
        at: SocketAddr,
        #[command(flatten)]
        sizes: Sizes,
    },
}

/// Both ends need the same.
#[derive(Args, Clone, Copy, Debug)]
struct Sizes {
    /// Smallest UDP payload, in bytes
    #[arg(long, default_value_t = 8)]
    smallest: usize,
    /// Largest UDP payload, in bytes
    #[arg(long, default_value_t = 1472)]
    largest: usize,
}

impl Sizes {
    fn plan(self, seed: u64) -> udp::Plan {
        udp::Plan {
            seed,
            smallest: self.smallest,
            largest: self.largest,
        }
    }
}

fn run(cli: &Cli) -> Result<String, CheckError> {
    let seed = cli.seed;
    match cli.command {
        Command::TcpSend { to, bytes, seconds } => {
            let time = seconds.map(Duration::from_secs);
            tcp::send(to, seed, bytes, time).map(|bytes| format!("bytes={bytes}"))
        }
        Command::TcpReceive { at } => {
            let listener =
                TcpListener::bind(at).map_err(CheckError::io(format!("listening at {at}")))?;
            println!("listening");
            tcp::receive(&listener, seed).map(|bytes| format!("bytes={bytes}"))
        }
        Command::UdpSend {
            to,
            count,
            burst,
            gap,
            together,
            sizes,
        } => {
            let pace = udp::Pace {
                burst,
                gap: Duration::from_micros(gap),
                together,
            };
            udp::send(to, &sizes.plan(seed), count, pace)
        }
        Command::UdpReceive { at, sizes } => {
            let socket =
                UdpSocket::bind(at).map_err(CheckError::io(format!("listening at {at}")))?;
            println!("listening");
            udp::receive(&socket, &sizes.plan(seed)).map(|report| report.to_string())
        }
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("wirecheck: {error}");
            match error {
                CheckError::Content(_) => ExitCode::from(WRONG),
                CheckError::Io { .. } | CheckError::Count(_) => ExitCode::FAILURE,
            }
        }
    }
}
