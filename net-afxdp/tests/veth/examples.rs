//! The examples, as a user runs them. `cargo test` builds them, unless it is told which tests to run.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Lines, Read},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    net::{Net, ip, skipped},
    packet::{PATIENCE, Packet, frame},
};

/// An example that runs; killed at the end if it still does.
struct Example {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Example {
    /// Starts it, and waits for its first line: it is open then.
    fn start(name: &str, arguments: &[&str]) -> Option<Self> {
        // target/debug/deps/veth-... -> target/debug/examples
        let mut path: PathBuf = env::current_exe().unwrap();
        path.pop();
        path.pop();
        path.push(format!("examples/{name}"));
        if !path.exists() {
            skipped(&format!(
                "example {name}: not built, as only some tests were asked for"
            ));
            return None;
        }
        let mut child = Command::new(path)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut example = Self { child, lines };
        assert!(example.line().starts_with(&format!("{}: ", arguments[0])));
        Some(example)
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").unwrap()
    }

    /// Presses ctrl-C.
    fn interrupt(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).unwrap();
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// With an MTU of several chunks where the kernel has them.
fn net() -> Option<Net> {
    let net = Net::new()?;
    ip(&format!("link set dev {} mtu 9000", net.near));
    ip(&format!("link set dev {} mtu 9000", net.far));
    Some(net)
}

#[test]
fn the_reflector_sends_frames_back_with_their_addresses_swapped() {
    let Some(net) = net() else { return };
    let Some(mut reflector) = Example::start("reflector", &[&net.near]) else {
        return;
    };
    let far = Packet::open(&net.far);
    for (number, length) in (0..).zip([60, 1514, 3800, 60]) {
        let mut sent = frame(number, length);
        far.send(&sent).unwrap();
        let got = far.receive().expect("a frame that comes back");
        let (destination, source) = sent.split_at_mut(6);
        destination.swap_with_slice(&mut source[..6]);
        assert!(got == sent, "{length} bytes");
    }
    reflector.interrupt();
    assert!(reflector.line().contains("rx_packets: 4"));
    assert!(reflector.child.wait().unwrap().success());
    assert_eq!(net.interface().xdp_program(), None);
}

#[test]
fn the_counter_counts_by_ethertype() {
    let Some(net) = net() else { return };
    let Some(mut counter) = Example::start("counter", &[&net.near]) else {
        return;
    };
    let far = Packet::open(&net.far);
    for number in 0..50 {
        far.send(&frame(number, 100)).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while counter.line() != "  0x88b5: 50 frames, 5000 bytes" {
        assert!(Instant::now() < deadline);
    }
    ip(&format!("link del {}", net.near));
    assert!(
        !counter.child.wait().unwrap().success(),
        "it says that the interface is gone"
    );
}

#[test]
fn the_counter_ends_when_it_is_told_to() {
    let Some(net) = net() else { return };
    let Some(mut counter) = Example::start("counter", &[&net.near, "1", "1"]) else {
        return;
    };
    assert!(counter.child.wait().unwrap().success());
    assert_eq!(net.interface().xdp_program(), None);
}

#[test]
fn what_pcap_writes_is_what_came() {
    let Some(net) = net() else { return };
    let name = format!("net-afxdp-{}.pcap", std::process::id());
    let path = env::temp_dir().join(name);
    let file = path.to_str().unwrap();
    let Some(mut pcap) = Example::start("pcap", &[&net.near, file, "30"]) else {
        return;
    };
    let far = Packet::open(&net.far);
    let lengths = [60, 1514, 3800];
    for (number, length) in (0..30).zip(lengths.into_iter().cycle()) {
        far.send(&frame(number, length)).unwrap();
    }
    assert!(pcap.line().starts_with("30 frames"));
    assert!(pcap.child.wait().unwrap().success());

    let mut bytes = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
    std::fs::remove_file(&path).unwrap();
    let word = |at: usize| {
        let word = bytes[at..at + 4].first_chunk::<4>().unwrap();
        u32::from_ne_bytes(*word) as usize
    };
    assert_eq!((word(0), word(20)), (0xa1b2_3c4d, 1));
    let mut at = 24;
    for (number, length) in (0..30).zip(lengths.into_iter().cycle()) {
        assert_eq!((word(at + 8), word(at + 12)), (length, length));
        at += 16;
        assert!(
            bytes[at..at + length] == frame(number, length),
            "frame {number}"
        );
        at += length;
    }
    assert_eq!(at, bytes.len());
}
