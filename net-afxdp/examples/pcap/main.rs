//! Writes the frames that arrive on an interface's first queue to a file that Wireshark and tcpdump
//! read, until so many have come or so many seconds have passed.
//!
//! `pcap INTERFACE FILE [FRAMES] [SECONDS]`
//!
//! What is received is taken off the wire: the kernel's own stack does not see it.

use std::{
    env,
    error::Error,
    fs::File,
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use net_afxdp::{Port, PortConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const USAGE: &str = "usage: pcap INTERFACE FILE [FRAMES] [SECONDS]";

/// Longest record; larger frames are cut (pcap-savefile(5), "snapshot length").
const SNAPSHOT: u32 = 262_144;

/// Frames that are written between two looks at the clock.
const BURST: u64 = 64;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pcap: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let config = PortConfig {
        ifname: arguments.next().ok_or(USAGE)?,
        ..PortConfig::default()
    };
    let file = arguments.next().ok_or(USAGE)?;
    let most: u64 = arguments.next().map_or(Ok(u64::MAX), |it| it.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(u64::MAX), |it| it.parse())?;

    let mut output = BufWriter::new(File::create(&file)?);
    write_file_header(&mut output)?;
    let mut port = Port::open(&config)?;
    let mut queue = port.take_queues().pop().ok_or("no queue")?;
    println!("{}: writing to {file}", config.ifname);

    let start = Instant::now();
    let mut written = 0;
    while written < most && start.elapsed().as_secs() < seconds {
        let mut result = Ok(());
        let budget = usize::try_from(BURST.min(most - written))?;
        let taken = queue.receive(budget, |fragments| {
            result = write_frame(&mut output, fragments);
            match result {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        result?;
        written += taken as u64;
        if taken == 0 {
            output.flush()?;
            let mut fds = [PollFd::new(&queue, PollFlags::IN)];
            let pause = Timespec::try_from(Duration::from_millis(100))?;
            poll(&mut fds, Some(&pause))?;
        }
    }
    output.flush()?;
    println!("{written} frames; {:?}", queue.statistics()?);
    Ok(())
}

/// The header of a file with times in nanoseconds and frames of Ethernet (pcap-savefile(5)).
fn write_file_header(output: &mut impl Write) -> io::Result<()> {
    const MAGIC: u32 = 0xa1b2_3c4d;
    const ETHERNET: u32 = 1;
    output.write_all(&MAGIC.to_ne_bytes())?;
    // Version 2.4.
    output.write_all(&2_u16.to_ne_bytes())?;
    output.write_all(&4_u16.to_ne_bytes())?;
    output.write_all(&[0; 8])?;
    output.write_all(&SNAPSHOT.to_ne_bytes())?;
    output.write_all(&ETHERNET.to_ne_bytes())
}

/// One record: its time is now, as the kernel does not say when the frame came.
fn write_frame(output: &mut impl Write, fragments: &[&[u8]]) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    // The format's seconds end in 2106.
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let length = fragments.iter().map(|it| it.len()).sum::<usize>();
    let length = u32::try_from(length).map_err(io::Error::other)?;
    // A frame has 64 KiB at most, so nothing is ever cut.
    for field in [seconds, now.subsec_nanos(), length.min(SNAPSHOT), length] {
        output.write_all(&field.to_ne_bytes())?;
    }
    fragments
        .iter()
        .try_for_each(|bytes| output.write_all(bytes))
}
