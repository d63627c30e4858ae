//! Every system call that opening, serving and closing a queue makes, failing one by one: an error
//! that names its cause or none, nothing left behind, and no endless retrying.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Instant,
};

use net_afxdp::{LinkMonitor, OpenError, Port, PortConfig, TxMetadata};
use rustix::event::PollFlags;

use crate::{
    child,
    held::Held,
    net::Net,
    packet::{PATIENCE, Packet, frame, wait},
    seccomp::{self, Call},
    traffic::{config, send},
    tx_metadata,
};

/// UMEM frames of the queue; an odd size for memory that anybody else maps.
const FRAMES: u32 = 64;

/// Frames sent each way.
const BURST: u32 = 8;

/// The calls that may fail while a queue is opened and served.
const CALLS: [(libc::c_long, &str); 12] = [
    (libc::SYS_socket, "socket"),
    (libc::SYS_bind, "bind"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_setsockopt, "setsockopt"),
    (libc::SYS_getsockopt, "getsockopt"),
    (libc::SYS_getsockname, "getsockname"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_recvfrom, "recvfrom"),
];

/// The calls that give something back at the end. Linux gives it back whatever it says; a call that fails here
/// does not, which is worse.
const RELEASES: [(libc::c_long, &str); 2] =
    [(libc::SYS_close, "close"), (libc::SYS_munmap, "munmap")];

const ERRORS: [i32; 4] = [libc::EINTR, libc::ENOBUFS, libc::ENOMEM, libc::EPERM];

/// What fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Call(CallFault),
    /// At the end, the release of that number; `None`: all of them.
    Release(Option<usize>),
}

/// What fails before the end.
#[derive(Debug, Clone, Copy)]
struct CallFault {
    /// The number of the first call that fails.
    first: usize,
    /// All after it, too: those of the same name.
    lasting: bool,
    error: i32,
}

/// A life of a queue.
struct Life {
    outcome: Outcome,
    /// The names of its calls before the end.
    calls: Vec<&'static str>,
    /// Its releases.
    releases: Vec<Call>,
    /// Those of them that failed.
    withheld: Vec<Call>,
}

/// How a life of a queue went.
#[derive(Debug)]
enum Outcome {
    /// Not opened.
    Refused(String),
    /// All frames passed, after this many flushes that failed.
    Served(u32),
    /// Not all frames passed.
    Stuck(String),
}

#[test]
fn each_system_call_fails_once_or_for_ever_and_nothing_is_left_behind() {
    let Some(net) = Net::new() else { return };
    check(&net, "");
}

/// The same of a queue with TX metadata, which is set up without libxdp.
#[test]
fn each_system_call_fails_with_tx_metadata_too() {
    let Some(net) = Net::new() else { return };
    if tx_metadata::kernel_can() {
        check(&net, " on");
    }
}

fn check(net: &Net, option: &str) {
    let names = format!("{} {}{option}", net.near, net.far);
    let mut child = child::start("inject", &names);
    let report = child::line(&mut child);
    assert!(child.wait().unwrap().success(), "{report}");
    eprintln!("{report}");
    assert_eq!(net.interface().xdp_program(), None);
}

/// What the child does.
pub(crate) fn run(near: &str, far: &str, tx_metadata: TxMetadata) {
    let (ask, asked) = channel();
    let near = &PortConfig {
        frames: FRAMES,
        tx_metadata,
        ..config(near)
    };
    let far = Packet::open(far);
    // Before the filter, so that its calls are its own. Ends with the process.
    thread::spawn(move || serve_far_end(&far, &asked));

    // What the first life leaves behind is not a leak: caches of libraries.
    let none = Held::now();
    live(near, &ask, None);
    let before = Held::settled(&none);
    assert_eq!((before.sockets, before.mappings), (0, 0));
    let whole = live(near, &ask, None);
    assert!(
        matches!(whole.outcome, Outcome::Served(0)),
        "{:?}",
        whole.outcome
    );
    assert_eq!(Held::settled(&before), before);
    fail_releases(near, &ask, &before, whole.releases.len());
    let calls = whole.calls;
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut refused = 0;
    for first in 0..calls.len() {
        for (number, error) in ERRORS.into_iter().enumerate() {
            // Both kinds for each call; a call that waits for an answer goes on if interrupted.
            let lasting = (first + number) % 2 == 1 && error != libc::EINTR;
            let fault = CallFault {
                first,
                lasting,
                error,
            };
            let life = live(near, &ask, Some(Fault::Call(fault)));
            let (outcome, made) = (life.outcome, life.calls);
            let name = made.get(first).copied().unwrap_or("none");
            *seen.entry(name).or_default() += 1;
            let context = format!("{name}, {fault:?}: {outcome:?}");
            match outcome {
                Outcome::Refused(text) => {
                    refused += 1;
                    assert!(text.len() > 20 && text.contains(&near.ifname), "{context}");
                }
                Outcome::Served(_) => {}
                // Nothing passes while it lasts; else all does.
                Outcome::Stuck(why) => assert!(lasting, "{context}: {why}"),
            }
            let now = Held::settled(&before);
            assert_eq!(now, before, "{context} {made:?}");
        }
    }
    assert!(refused > 0);
    println!(
        "\n> {} lives, {refused} not opened; {seen:?}",
        calls.len() * 4
    );
}

/// A release that fails loses what it was to give back, and nothing else: with that given back by us, all is as
/// before. The life before it was as good as any, and so is the next one.
fn fail_releases(near: &PortConfig, ask: &Sender<()>, before: &Held, count: usize) {
    assert!(count > 10, "{count} releases");
    for which in (0..count).map(Some).chain([None]) {
        let life = live(near, ask, Some(Fault::Release(which)));
        let context = format!("release {which:?} of {count}: {:?}", life.outcome);
        assert!(matches!(life.outcome, Outcome::Served(0)), "{context}");
        assert!(!life.withheld.is_empty(), "{context}");
        for call in &life.withheld {
            seccomp::carry_out(call);
        }
        assert_eq!(Held::settled(before), *before, "{context}");
    }
}

/// Frames for whoever asks.
fn serve_far_end(far: &Packet, asked: &Receiver<()>) {
    while asked.recv().is_ok() {
        for number in 0..BURST {
            let _ = far.send(&frame(number, 100));
        }
        while far.try_receive().is_some() {}
    }
}

/// One life of a queue in a thread whose calls are supervised.
fn live(near: &PortConfig, ask: &Sender<()>, fault: Option<Fault>) -> Life {
    let closing = Arc::new(AtomicBool::new(false));
    let tell_closing = closing.clone();
    let numbers: Vec<_> = CALLS.iter().chain(&RELEASES).map(|(it, _)| *it).collect();
    let (tell, listener) = channel::<OwnedFd>();
    let (near, ask) = (near.clone(), ask.clone());
    let thread = thread::spawn(move || {
        tell.send(seccomp::supervise(&numbers).unwrap()).unwrap();
        drop(tell);
        let outcome = serve_queue(&near, &ask, &tell_closing);
        // What the thread itself gives back is no business of ours.
        tell_closing.store(false, Ordering::Relaxed);
        outcome
    });
    let listener = listener.recv().unwrap();
    let (mut calls, mut releases, mut withheld) = (Vec::new(), Vec::new(), Vec::new());
    let mut failing = None;
    while let Some(call) = seccomp::next(&listener) {
        let error = if closing.load(Ordering::Relaxed) {
            fail_release(fault, &call, &mut releases).inspect(|_| withheld.push(call))
        } else {
            fail_call(fault, &call, &mut calls, &mut failing)
        };
        assert!(!is_endless(&calls), "endless: {fault:?}: {calls:?}");
        seccomp::answer(&listener, &call, error);
    }
    Life {
        outcome: thread.join().unwrap(),
        calls,
        releases,
        withheld,
    }
}

/// The error for a call before the end. `failing`: the call that fails from now on.
fn fail_call(
    fault: Option<Fault>,
    call: &Call,
    calls: &mut Vec<&'static str>,
    failing: &mut Option<libc::c_long>,
) -> Option<i32> {
    let name = subject(call)?;
    let position = calls.len();
    calls.push(name);
    let Some(Fault::Call(fault)) = fault else {
        return None;
    };
    let first = position == fault.first;
    // libxdp asks by getsockopt for what it is to unmap.
    if first && fault.lasting && name != "getsockopt" {
        *failing = Some(call.number);
    }
    (first || *failing == Some(call.number)).then_some(fault.error)
}

/// The error for a call at the end.
fn fail_release(fault: Option<Fault>, call: &Call, releases: &mut Vec<Call>) -> Option<i32> {
    if !RELEASES.iter().any(|(number, _)| *number == call.number) {
        return None;
    }
    let position = releases.len();
    releases.push(*call);
    let Some(Fault::Release(which)) = fault else {
        return None;
    };
    let error = if call.number == libc::SYS_close {
        libc::EIO
    } else {
        libc::ENOMEM
    };
    which.is_none_or(|which| which == position).then_some(error)
}

/// Whether these are more calls than anything takes: some sixty, and a dozen for each time that a queue is
/// tried again which the kernel has not yet freed since the life before; those are bounded by time.
fn is_endless(calls: &[&str]) -> bool {
    let tries = calls.iter().filter(|name| **name == "bind").count();
    calls.len() > 300 + 10 * tries
}

/// The name of a call that may fail. `None`: one of the standard library's or the allocator's.
fn subject(call: &Call) -> Option<&'static str> {
    let [address, length, _, _, fd, _] = call.arguments;
    let umem = u64::from(FRAMES) * 4096;
    let ours = match call.number {
        // The rings have a descriptor; the rest is the allocator's, save the UMEM.
        libc::SYS_mmap => fd & 0xffff_ffff != 0xffff_ffff || address == 0 && length == umem,
        libc::SYS_madvise => length == umem,
        _ => true,
    };
    let (_, name) = CALLS.iter().find(|(number, _)| *number == call.number)?;
    ours.then_some(*name)
}

/// `closing` is set when only the drops are left. What they ask the kernel (where the rings are) can't fail, and
/// libxdp could do nothing about it; what they give back can.
fn serve_queue(config: &PortConfig, ask: &Sender<()>, closing: &AtomicBool) -> Outcome {
    let near = &config.ifname;
    let mut port = match Port::open(config) {
        Ok(port) => port,
        Err(error) => return Outcome::Refused(sentence(&error)),
    };
    let mut queue = port.take_queues().remove(0);
    let watched = LinkMonitor::open(port.interface().index()).and_then(|mut monitor| {
        while monitor.next_event()?.is_some() {}
        Ok(monitor)
    });
    let _monitor = match watched {
        Ok(monitor) => monitor,
        Err(error) => {
            return Outcome::Refused(format!("{near}: cannot watch the link: {error}"));
        }
    };
    let mut flushes = Vec::new();
    let start = Instant::now();
    for number in 0..BURST {
        send(&mut queue, &frame(number, 100)).unwrap();
    }
    ask.send(()).unwrap();
    let mut received = 0;
    // Bounded: a fault that lasts lets nothing pass.
    for _ in 0..20 {
        if let Err(error) = queue.flush() {
            flushes.push(error);
        }
        received += queue.receive(64, |_| ControlFlow::Continue(()));
        if received >= BURST as usize && queue.unsent() == 0 {
            break;
        }
        if received < BURST as usize {
            wait(queue.as_fd(), PollFlags::IN);
        }
        assert!(start.elapsed() < PATIENCE);
    }
    let accounting = queue.accounting();
    assert!(accounting.is_balanced(), "{accounting:?}");
    let _ = queue.statistics();
    closing.store(true, Ordering::Relaxed);
    if received >= BURST as usize && queue.unsent() == 0 {
        return Outcome::Served(u32::try_from(flushes.len()).unwrap());
    }
    Outcome::Stuck(format!(
        "{received} received, {} unsent, {flushes:?}",
        queue.unsent()
    ))
}

/// The error as a user reads it; its source must not be lost.
fn sentence(error: &OpenError) -> String {
    let text = error.to_string();
    assert!(
        text.ends_with(|last: char| last.is_alphanumeric() || last == ')'),
        "{text}"
    );
    text
}
