//! The hostile bare guest of `tests/guests`: it breaks the rules of `docs/catalogue.md`, entry by entry, under this
//! machine's KVM, and shows after each that frames still go there and back. Needs root.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use net_afxdp::Queue;

use crate::{
    bare::{ETHERTYPE, Far, NUMBER, PATTERN, pattern, program},
    process::{Process, run},
    wire::{Wire, can_run},
};

/// Some seconds on a machine that does nothing else. The guest is the one who notices that something does not happen.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the guest sends besides, and its bytes.
const OTHER: [u8; 2] = [0x88, 0xb6];
const FILL: u8 = 0x5a;

/// The entries that a driver can do.
fn entries() -> impl Iterator<Item = u8> {
    (1..=36).chain([59])
}

/// Where the first device on MMIO is, which ACPI says, and not the command line; the guest knows no ACPI.
const CARD: &str = "virtio_mmio.device=4K@0xd0000000:5";

/// What the far end saw.
#[derive(Debug, Default)]
struct Tally {
    /// Numbers of the frames that were to come back.
    numbers: Vec<u64>,
    /// Frames of the other kind.
    others: u64,
}

impl Tally {
    /// Looks at every byte of a frame; true if it is to be sent back.
    fn count(&mut self, frame: &[u8]) -> bool {
        match <[u8; 2]>::try_from(&frame[12..14]).unwrap() {
            ETHERTYPE => {
                let wrong = pattern(sent(frame)).position(|(&byte, right)| byte != right);
                assert_eq!(wrong, None, "{frame:x?}");
                let number = frame[NUMBER..PATTERN].try_into().unwrap();
                self.numbers.push(u64::from_be_bytes(number));
                true
            }
            OTHER => {
                let right = sent(frame)[14..].iter().all(|&byte| byte == FILL);
                assert!(right, "{frame:x?}");
                self.others += 1;
                false
            }
            // Packets that were to be cut, and what the kernel sends.
            _ => false,
        }
    }
}

/// A frame as the guest gave it: zeros were put behind a short one, up to 60 bytes. No frame of 60 bytes that the guest
/// sends ends with one.
fn sent(frame: &[u8]) -> &[u8] {
    let last = frame.iter().rposition(|&byte| byte != 0);
    match (frame.len(), last) {
        (60, Some(last)) => &frame[..=last.max(PATTERN)],
        _ => frame,
    }
}

/// Sends frames back, addresses swapped, until told to end.
fn reflect(queue: &mut Queue, end: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut back = Vec::new();
    while !end.load(Ordering::Acquire) {
        let taken = queue.receive(64, |fragments| {
            let mut frame = fragments.concat();
            if tally.count(&frame) {
                let (to, from) = frame[..12].split_at_mut(6);
                to.swap_with_slice(from);
                back.push(frame);
            }
            ControlFlow::Continue(())
        });
        for frame in back.drain(..) {
            while queue.room() == 0 {
                queue.flush().unwrap();
            }
            queue
                .send(frame.len(), |bytes| bytes.copy_from_slice(&frame))
                .unwrap();
        }
        queue.flush().unwrap();
        if taken == 0 {
            // The guest needs a CPU, and there may be only two.
            thread::yield_now();
        }
    }
    tally
}

/// Runs the list with these options of the netdev and of the wire; all that it must be.
fn survives(queues: u32, options: &str) {
    let wire = Wire::with_queues(queues);
    let mut far = Far::new(&wire, 1);
    let netdev = format!("af-xdp,ifname={}{options}", wire.name);
    // In an emulated host everything takes its time.
    let cmdline = format!("{CARD} patience=120");
    // Beside the card, which is on MMIO, there is PCI.
    let device = "virtio-net-mmio,netdev=net0";
    let cards = ["-v", "--netdev", &netdev, "--device", device];
    let arguments = [&cards[..], &["--cmdline", &cmdline]].concat();
    let guest = Process::start(&mut run(&program("hostile"), &arguments));
    let mut guest = guest.with_patience(PATIENCE);
    let end = AtomicBool::new(false);
    let (outcome, tally) = thread::scope(|scope| {
        let reflector = scope.spawn(|| reflect(&mut far.queues[0], &end));
        guest.wait_for("ready\n");
        let outcome = guest.finish();
        end.store(true, Ordering::Release);
        (outcome, reflector.join().unwrap())
    });
    println!("{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    for entry in entries() {
        let start = format!("entry {entry}: ");
        let mut lines = outcome.stdout.lines();
        let line = lines.find(|line| line.starts_with(&start));
        assert!(line.is_some_and(|line| line.ends_with("frames exact")));
    }
    let done = format!("done: {} entries, ", entries().count());
    let (_, frames) = outcome.stdout.rsplit_once(&done).unwrap();
    let frames: u64 = frames.split(' ').next().unwrap().parse().unwrap();
    // Each, and in order; after a flood that the wire is too slow for, one is sent until it is back.
    let mut numbers = tally.numbers;
    numbers.dedup();
    assert!(numbers.into_iter().eq(0..frames));
    assert!(
        tally.others > 0,
        "what is right is sent, also in bad company"
    );
    for words in ["don't add up", "panicked", "astray"] {
        assert!(!outcome.stderr.contains(words), "{}", outcome.stderr);
    }
    // A guest can't fill the log.
    assert!(outcome.stderr.lines().count() < 200, "{}", outcome.stderr);
    wire.assert_clean();
}

/// 1 to 36, 59
#[test]
fn the_whole_list_by_a_guest() {
    if can_run() {
        survives(2, ",queues=2");
    }
}

/// The same where frames are sent from the guest's memory, on one queue.
#[test]
fn the_whole_list_by_a_guest_without_copies() {
    if can_run() {
        survives(1, ",zero-copy-tx=on");
    }
}
