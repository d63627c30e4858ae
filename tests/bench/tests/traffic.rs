//! `ringwire-bench traffic` on real wires: every way to the wire moves whole frames. Needs root; says so and passes
//! without.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is the failure report, in the helpers of the tests, too"
)]

use std::{
    io::{BufRead, BufReader},
    ops::ControlFlow,
    path::Path,
    process::{Child, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use net_afxdp::{Port, PortConfig, Queue};
use ringwire_tests::Wire;

const KINDS: [&str; 4] = ["net-afxdp", "net-afxdp-skb", "packet-v2", "packet-v3"];
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// As many as all rings on the way hold: none can be lost.
const FRAMES: u16 = 100;

/// Runs `test` with the far end opened.
fn with_far_end(test: impl FnOnce(&Wire, &mut Queue) + Send) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: making network namespaces needs root");
        return;
    }
    let wire = Wire::new();
    // A thread of its own: its namespace is another one afterwards.
    thread::scope(|scope| {
        scope.spawn(|| {
            wire.enter(false);
            let mut port = Port::open(&PortConfig {
                ifname: Wire::PEER_IFNAME.into(),
                ..PortConfig::default()
            })
            .unwrap();
            let mut queue = port.take_queues().pop().unwrap();
            test(&wire, &mut queue);
        });
    });
}

/// The program at the near end, ready.
struct Near {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Near {
    fn start(wire: &Wire, words: &str) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_ringwire-bench"));
        let mut child = wire
            .vmm_command(program)
            .args(["traffic", "--ifname", Wire::IFNAME, "--seconds", "60"])
            .args(words.split(' '))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut near = Self { child, lines };
        near.counts();
        near
    }

    /// Frames received and sent, from the next line.
    fn counts(&mut self) -> (u64, u64) {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert!(words.len() == 4 && words[0] == "progress", "{line:?}");
        (words[2].parse().unwrap(), words[3].parse().unwrap())
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Frame `number`: broadcast, the EtherType for local experiments, every byte known.
fn frame(number: u16, size: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.extend((0..=u8::MAX).cycle().take(size - frame.len()));
    frame
}

fn send_all(queue: &mut Queue, size: usize) {
    for number in 0..FRAMES {
        let frame = frame(number, size);
        queue
            .send(size, |bytes| bytes.copy_from_slice(&frame))
            .unwrap();
    }
    queue.flush().unwrap();
}

/// Frames that arrive at the far end until there are `count` that `wanted` takes.
fn receive(queue: &mut Queue, count: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut frames = Vec::new();
    while frames.len() < count && Instant::now() < deadline {
        queue.receive(64, |fragments| {
            let frame = fragments.concat();
            if wanted(&frame) {
                frames.push(frame);
            }
            ControlFlow::Continue(())
        });
    }
    frames
}

#[test]
fn what_is_received_is_counted() {
    for kind in KINDS {
        with_far_end(|wire, far| {
            let mut near = Near::start(wire, &format!("{kind} rxdrop"));
            send_all(far, 64);
            let deadline = Instant::now() + PATIENCE;
            let mut received = 0;
            while received < u64::from(FRAMES) && Instant::now() < deadline {
                received = near.counts().0;
            }
            // The far end's kernel has a few of its own.
            assert!(
                (FRAMES..FRAMES + 50).contains(&u16::try_from(received).unwrap()),
                "{kind}: {received}"
            );
        });
    }
}

#[test]
fn what_is_forwarded_comes_back_whole_and_in_order_with_its_addresses_swapped() {
    for kind in KINDS {
        for size in [64, 571, 1514] {
            with_far_end(|wire, far| {
                let _near = Near::start(wire, &format!("{kind} l2fwd"));
                send_all(far, size);
                let experiment = |frame: &[u8]| frame[12..14] == [0x88, 0xb5];
                let frames = receive(far, usize::from(FRAMES), experiment);
                let sent = (0..FRAMES).map(|number| {
                    let mut frame = frame(number, size);
                    frame[..12].rotate_left(6);
                    frame
                });
                assert!(frames.into_iter().eq(sent), "{kind}, {size} bytes");
            });
        }
    }
}

#[test]
fn what_is_pushed_has_the_size_that_was_asked_for() {
    for kind in KINDS {
        for size in [60, 1514] {
            with_far_end(|wire, far| {
                let _near = Near::start(wire, &format!("{kind} txpush --size {size}"));
                let datagram = |frame: &[u8]| frame[12..14] == [8, 0];
                let frames = receive(far, 1000, datagram);
                assert_eq!(frames.len().min(1000), 1000, "{kind}");
                assert!(frames.iter().all(|it| it.len() == size), "{kind}, {size}");
            });
        }
    }
}
