//! `ringwire-bench traffic`: one end of a wire, by AF_XDP or by the rings of AF_PACKET. What it has done is printed as
//! it goes, one line each 50 ms: `progress NANOSECONDS RECEIVED SENT`.

mod afxdp;
mod frame;
mod packet;
mod packet_ring;
mod packet_socket;

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};

use crate::{case::Work, cpu, error::BenchError};

/// Frames between two flushes, and between two looks at the clock.
const BURST: usize = 64;

/// Time between two lines.
const REPORT: Duration = Duration::from_millis(50);

/// How a frame gets from this process to the interface, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// AF_XDP by the crate net-afxdp, native mode where the driver has it
    #[value(name = "net-afxdp")]
    Afxdp,
    /// The same in skb mode
    #[value(name = "net-afxdp-skb")]
    AfxdpSkb,
    /// AF_PACKET with rings of TPACKET_V2
    #[value(name = "packet-v2")]
    PacketV2,
    /// AF_PACKET with rings of TPACKET_V3
    #[value(name = "packet-v3")]
    PacketV3,
}

/// What is in a frame that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// A UDP datagram to an address that nobody has, as DPDK's testpmd sends
    Udp,
    /// The same with its UDP checksum
    #[value(name = "udp-checked")]
    Checked,
    /// A broadcast of the EtherType for local experiments, as the bare guest of tests/guests sends
    Experimental,
}

/// `ringwire-bench traffic`.
#[derive(Debug, Args)]
pub(crate) struct TrafficArgs {
    /// How
    pub(crate) kind: Kind,
    /// What to do
    pub(crate) work: Work,
    /// The interface
    #[arg(long)]
    pub(crate) ifname: String,
    /// Bytes of a frame that is sent
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(60..=1514))]
    pub(crate) size: u16,
    /// What is in it
    #[arg(long, default_value = "udp")]
    pub(crate) pattern: Pattern,
    /// How long
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Run on this CPU alone
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Frames a second that are sent at most, by txpush; 0: as many as can be
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u64,
}

/// One end of the wire.
trait End {
    /// How many frames can be sent now.
    fn room(&mut self) -> usize;
    /// Writes a frame of `length` bytes; not called more often than there is room.
    fn send(&mut self, length: usize, fill: impl FnMut(&mut [u8]));
    /// Hands what was written to the kernel.
    fn flush(&mut self) -> io::Result<()>;
    /// Shows up to `budget` received frames; returns how many.
    fn receive(&mut self, budget: usize, take: impl FnMut(&[u8])) -> usize;
}

/// Opens the interface and works for the time that was asked for.
pub(crate) fn run(args: &TrafficArgs) -> Result<(), BenchError> {
    if let Some(cpu) = args.cpu {
        cpu::pin(cpu)?;
    }
    match args.kind {
        Kind::Afxdp => work(args, afxdp::Afxdp::open(&args.ifname, false)?),
        Kind::AfxdpSkb => work(args, afxdp::Afxdp::open(&args.ifname, true)?),
        Kind::PacketV2 => work(args, packet::V2::open(&args.ifname, args.work)?),
        Kind::PacketV3 => work(args, packet::V3::open(&args.ifname, args.work)?),
    }
}

fn work(args: &TrafficArgs, mut end: impl End) -> Result<(), BenchError> {
    let size = usize::from(args.size);
    let frame = match args.pattern {
        Pattern::Udp => frame::udp(size),
        Pattern::Checked => frame::checked(frame::udp(size)),
        Pattern::Experimental => frame::experimental(size),
    };
    let mut report = Report::start(args);
    let mut held = Held::new();
    while report.goes_on()? {
        match args.work {
            Work::TxPush => report.sent += push(&mut end, &frame, report.allowance(args.rate)),
            Work::RxDrop => report.received += end.receive(BURST, |_| {}) as u64,
            Work::L2Fwd => {
                let count = held.forward(&mut end);
                report.received += count;
                report.sent += count;
            }
        }
        if args.work != Work::RxDrop {
            end.flush()
                .map_err(BenchError::system(format!("sending on {}", args.ifname)))?;
        }
    }
    Ok(())
}

/// Queues a burst; returns how many frames.
fn push(end: &mut impl End, frame: &[u8], allowed: usize) -> u64 {
    let count = end.room().min(BURST).min(allowed);
    for _ in 0..count {
        end.send(frame.len(), |bytes| bytes.copy_from_slice(frame));
    }
    count as u64
}

/// Frames between the two rings: what is received can't be sent without a copy.
struct Held {
    bytes: Vec<[u8; 2048]>,
    lengths: [usize; BURST],
}

impl Held {
    fn new() -> Self {
        Self {
            bytes: vec![[0; 2048]; BURST],
            lengths: [0; BURST],
        }
    }

    /// Sends back a burst of what has arrived; returns how many frames.
    fn forward(&mut self, end: &mut impl End) -> u64 {
        let budget = end.room().min(BURST);
        let mut slots = self.bytes.iter_mut().zip(&mut self.lengths);
        let count = end.receive(budget, |frame| {
            let Some((bytes, length)) = slots.next() else {
                return;
            };
            *length = frame.len().min(bytes.len());
            let (to, from) = (bytes.get_mut(..*length), frame.get(..*length));
            if let (Some(to), Some(from)) = (to, from) {
                to.copy_from_slice(from);
                frame::swap_addresses(to);
            }
        });
        for (bytes, &length) in self.bytes.iter().zip(&self.lengths).take(count) {
            end.send(length, |to| {
                if let Some(from) = bytes.get(..to.len()) {
                    to.copy_from_slice(from);
                }
            });
        }
        count as u64
    }
}

/// The clock and the lines.
struct Report {
    start: Instant,
    next: Instant,
    end: Instant,
    now: Instant,
    received: u64,
    sent: u64,
}

impl Report {
    fn start(args: &TrafficArgs) -> Self {
        let start = Instant::now();
        Self {
            start,
            next: start,
            end: start + Duration::from_secs_f64(args.seconds.max(0.0)),
            now: start,
            received: 0,
            sent: 0,
        }
    }

    /// Whether there is time left; prints a line when one is due.
    fn goes_on(&mut self) -> Result<bool, BenchError> {
        self.now = Instant::now();
        if self.now >= self.next {
            self.next = self.now + REPORT;
            let elapsed = (self.now - self.start).as_nanos();
            let line = format!("progress {elapsed} {} {}\n", self.received, self.sent);
            let mut out = io::stdout().lock();
            out.write_all(line.as_bytes())
                .and_then(|()| out.flush())
                .map_err(BenchError::system("telling the progress"))?;
        }
        Ok(self.now < self.end)
    }

    /// How many frames more `rate` a second allows now.
    fn allowance(&self, rate: u64) -> usize {
        if rate == 0 {
            return usize::MAX;
        }
        let elapsed = (self.now - self.start).as_nanos();
        let due = elapsed * u128::from(rate) / 1_000_000_000;
        usize::try_from(due.saturating_sub(u128::from(self.sent))).unwrap_or(usize::MAX)
    }
}
