//! All kinds of traffic at once, both ways, every byte checked at its end, and every checksum on the wire.

use std::time::{Duration, Instant};

use ringwire_tests::{Background, Capture, Guest, Options, Sums, Wire};

use crate::offload::{GUEST6, PEER6, assert_no_checksum_errors, boot_with, counter, wirecheck};

/// The VLAN of the guest and the far end, and their addresses there.
const VLAN: u16 = 7;
const PEER_VLAN: &str = "10.79.0.1";
const GUEST_VLAN: &str = "10.79.0.2";

/// How long a sender or a receiver may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ports are counted from here.
const PORT: u16 = 6000;

/// What goes one way, by `wirecheck`.
#[derive(Debug, Clone, Copy)]
struct Stream {
    protocol: &'static str,
    /// Of the sender alone.
    amount: &'static str,
    /// Of both ends.
    sizes: &'static str,
}

const TCP: Stream = Stream {
    protocol: "tcp",
    amount: "--bytes 3000000",
    sizes: "",
};
const UDP: Stream = Stream {
    protocol: "udp",
    amount: "--count 400 --burst 8 --gap 20000",
    sizes: "--smallest 8 --largest 1452",
};
/// Longer than the MTU: they travel in fragments.
const FRAGMENTS: Stream = Stream {
    protocol: "udp",
    amount: "--count 60 --burst 1 --gap 20000",
    sizes: "--smallest 1480 --largest 9000",
};

/// The far end's address and the guest's, with what goes between them both ways.
const PATHS: [(&str, &str, &[Stream]); 3] = [
    (Wire::PEER, Wire::GUEST, &[TCP, UDP, FRAGMENTS]),
    (PEER6, GUEST6, &[TCP, UDP, FRAGMENTS]),
    (PEER_VLAN, GUEST_VLAN, &[TCP, UDP]),
];

/// One stream, one way.
#[derive(Debug, Clone)]
struct Flow {
    stream: Stream,
    /// Of the receiver.
    address: String,
    port: u16,
    /// Of the contents, another each time.
    seed: u16,
}

impl Flow {
    fn receive(&self) -> String {
        let Self { stream, seed, .. } = self;
        format!(
            "{}-receive {}:{} {} --seed {seed}",
            stream.protocol, self.address, self.port, stream.sizes
        )
    }

    fn send(&self) -> String {
        let Self { stream, seed, .. } = self;
        format!(
            "{}-send {}:{} {} {} --seed {seed}",
            stream.protocol, self.address, self.port, stream.amount, stream.sizes
        )
    }
}

/// All that goes to the guest, and all that goes to the far end. Paths over IPv6 have colons in their addresses.
fn flows(paths: &[(&str, &str, &[Stream])], round: u16) -> (Vec<Flow>, Vec<Flow>) {
    let address = |it: &str| {
        if it.contains(':') {
            format!("[{it}]")
        } else {
            it.to_owned()
        }
    };
    let all = paths.iter().flat_map(|(peer, guest, streams)| {
        streams
            .iter()
            .map(|&stream| (address(guest), address(peer), stream))
    });
    let flow = |address, port, stream| Flow {
        stream,
        address,
        port,
        seed: port.wrapping_add(round.wrapping_mul(64)),
    };
    (PORT..)
        .step_by(2)
        .zip(all)
        .map(|(port, (guest, peer, stream))| {
            (flow(guest, port, stream), flow(peer, port + 1, stream))
        })
        .unzip()
}

/// What arrived, of what was sent.
#[derive(Debug, Default)]
struct Tally {
    rounds: u16,
    bytes: u64,
    sent: u64,
    received: u64,
    reordered: u64,
    duplicates: u64,
}

impl Tally {
    /// Counts a receiver's report: "bytes=N", or "sent=N received=N duplicates=N reordered=N". Its content was right, or
    /// it would have failed.
    fn add(&mut self, flow: &Flow, report: &str) {
        let value = |name: &str| -> Option<u64> {
            let mut words = report.split_whitespace();
            words.find_map(|it| it.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        let count = |name| value(name).unwrap_or_else(|| panic!("no {name}: {flow:?}: {report}"));
        if flow.stream.protocol == "tcp" {
            self.bytes += count("bytes");
            return;
        }
        assert!(count("received") > 0, "nothing arrived: {flow:?}: {report}");
        self.sent += count("sent");
        self.received += count("received");
        self.reordered += count("reordered");
        self.duplicates += count("duplicates");
    }
}

/// Starts all flows at once and waits for their ends.
fn exchange(wire: &Wire, guest: &mut Guest, to: (Vec<Flow>, Vec<Flow>), tally: &mut Tally) {
    let (to_guest, to_peer) = to;
    for flow in &to_guest {
        let port = flow.port;
        guest.ok(&format!(
            "wirecheck {} >/tmp/r{port} 2>&1 & echo $! >/tmp/p{port}",
            flow.receive()
        ));
    }
    for flow in &to_guest {
        let report = format!("/tmp/r{}", flow.port);
        guest.ok(&format!(
            "until grep -q listening {report}; do usleep 50000; done"
        ));
    }
    let receivers: Vec<Background> = to_peer
        .iter()
        .map(|it| {
            wire.far_background(&wirecheck(&it.receive()))
                .after_line("listening")
        })
        .collect();
    for flow in &to_peer {
        let port = flow.port;
        guest.ok(&format!(
            "wirecheck {} >/tmp/r{port} 2>&1 & echo $! >/tmp/p{port}",
            flow.send()
        ));
    }
    let senders = to_guest.iter();
    let senders: Vec<_> = senders
        .map(|it| wire.far_background(&wirecheck(&it.send())))
        .collect();
    for sender in senders {
        sender.finish(PATIENCE);
    }
    for (flow, receiver) in to_peer.iter().zip(receivers) {
        tally.add(flow, &receiver.finish(PATIENCE));
    }
    for flow in to_guest.iter().chain(&to_peer) {
        let port = flow.port;
        let text = guest.ok(&format!(
            "wait $(cat /tmp/p{port}); s=$?; cat /tmp/r{port}; [ $s = 0 ]"
        ));
        if to_guest.iter().any(|it| it.port == port) {
            tally.add(flow, &text);
        }
    }
    tally.rounds += 1;
}

/// Both ends are in a VLAN too; false where the far end's kernel knows none.
fn join_vlan(wire: &Wire, guest: &mut Guest) -> bool {
    let far = Wire::PEER_IFNAME;
    let made = wire.far_status(&format!(
        "ip link add link {far} name vlan{VLAN} type vlan id {VLAN}"
    ));
    if !made {
        println!("SKIPPED: VLANs, which this kernel has not");
        return false;
    }
    // Its tags would travel beside the frames, where XDP does not see them.
    wire.far(&format!("ethtool -K {far} txvlan off"));
    wire.far(&format!("ip address add {PEER_VLAN}/24 dev vlan{VLAN}"));
    wire.far(&format!("ip link set vlan{VLAN} up"));
    guest.ok(&format!(
        "iproute2 link add link eth0 name vlan{VLAN} type vlan id {VLAN}"
    ));
    guest.ok(&format!("ip address add {GUEST_VLAN}/24 dev vlan{VLAN}"));
    guest.ok(&format!("ip link set vlan{VLAN} up"));
    guest.ok(&format!("ping -q -c 2 -W 5 {PEER_VLAN}"));
    true
}

/// Sees something, or it is not there yet.
fn capture(wire: &Wire, guest: &mut Guest) -> Capture {
    let capture = Capture::start(wire);
    let deadline = Instant::now() + PATIENCE;
    while capture.sums().icmp == 0 {
        assert!(Instant::now() < deadline, "tcpdump sees nothing");
        guest.ok(&format!("ping -q -c 1 -W 5 {}", Wire::PEER));
    }
    capture
}

/// Rounds of all kinds of traffic, until the time is up.
fn mixed(time: Duration) {
    let wire = Wire::new();
    let mut guest = boot_with(&wire, Options::new());
    let has_vlan = join_vlan(&wire, &mut guest);
    let paths = &PATHS[..if has_vlan { 3 } else { 2 }];
    let capture = capture(&wire, &mut guest);
    let mut tally = Tally::default();
    let start = Instant::now();
    while start.elapsed() < time {
        let flows = flows(paths, tally.rounds);
        exchange(&wire, &mut guest, flows, &mut tally);
    }
    let took = start.elapsed();
    assert_no_checksum_errors(&wire, &mut guest);
    let sums = capture.finish();
    println!("{took:.0?}: {tally:?}; from the guest: {sums:?}");
    assert_sums(&sums, has_vlan);
    // On a busy emulated host some get lost; none comes twice, or out of its order.
    assert!(tally.received * 100 >= tally.sent * 70, "{tally:?}");
    assert_eq!((tally.duplicates, tally.reordered), (0, 0), "{tally:?}");
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(counter(&log, "tx_segmented") > 50, "{log}");
    assert!(counter(&log, "rx_coalesced") > 50, "{log}");
    assert_eq!(counter(&log, "tx_bad_offload"), 0, "{log}");
}

fn assert_sums(sums: &Sums, has_vlan: bool) {
    assert_eq!(sums.wrong, 0, "{sums:?}");
    let seen = [sums.tcp, sums.udp, sums.fragments];
    assert!(seen.iter().all(|&it| it > 100), "{sums:?}");
    assert!(sums.tagged > 100 || !has_vlan, "{sums:?}");
}

#[test]
fn mixed_traffic_is_right_for_half_a_minute() {
    mixed(Duration::from_secs(30));
}

/// `tests/run-system-tests mixed_traffic_is_right_for_ten --ignored --nocapture`
#[test]
#[ignore = "takes ten minutes"]
fn mixed_traffic_is_right_for_ten_minutes() {
    mixed(Duration::from_secs(600));
}

/// What comes to the guest is lost, doubled and out of its order; so are the acknowledgments of what it sends.
#[test]
fn content_survives_loss_disorder_and_duplicates() {
    let wire = Wire::new();
    let mut guest = boot_with(&wire, Options::new());
    let far = Wire::PEER_IFNAME;
    // Not whole super-frames.
    wire.far(&format!("ethtool -K {far} tso off gso off"));
    let worse = "netem delay 3ms 1ms loss 1% duplicate 1% reorder 20% 50%";
    if !wire.far_status(&format!("tc qdisc add dev {far} root {worse}")) {
        println!("SKIPPED: this kernel has no netem");
        return;
    }
    let paths = [
        (Wire::PEER, Wire::GUEST, &[TCP, UDP][..]),
        (PEER6, GUEST6, &[TCP, UDP]),
    ];
    let mut tally = Tally::default();
    exchange(&wire, &mut guest, flows(&paths, 0), &mut tally);
    println!(
        "{tally:?}; {}",
        wire.far(&format!("tc -s qdisc show dev {far}"))
    );
    assert_eq!(tally.bytes, 4 * 3_000_000);
    // It did what it was asked for.
    assert!(tally.reordered > 0 && tally.duplicates > 0, "{tally:?}");
    assert!(tally.received < tally.sent, "{tally:?}");
    assert_no_checksum_errors(&wire, &mut guest);
    assert!(guest.power_off().success(), "{}", guest.log());
}

/// Frames of several flows arrive in turns: segments of one are not put behind another's.
#[test]
fn four_streams_at_once() {
    let wire = Wire::new();
    let mut guest = boot_with(&wire, Options::new());
    let four = [TCP; 4];
    let paths = [(Wire::PEER, Wire::GUEST, &four[..])];
    let mut tally = Tally::default();
    exchange(&wire, &mut guest, flows(&paths, 0), &mut tally);
    assert_eq!(tally.bytes, 8 * 3_000_000);
    let _server = wire
        .far_background("iperf3 --server --forceflush")
        .after_line("listening");
    for direction in ["", "--reverse"] {
        guest.send(&format!("iperf3 -c {} -t 5 -P 4 {direction}", Wire::PEER));
        let output = guest.answer(PATIENCE);
        assert_eq!(output.status, 0, "{}", output.text);
        let lines = output.text.lines();
        let received: Vec<_> = lines.filter(|it| it.ends_with("receiver")).collect();
        // One for each, and their sum.
        assert_eq!(received.len(), 5, "{}", output.text);
        assert!(
            received.iter().all(|it| !it.contains(" 0.00 Bytes")),
            "{received:?}"
        );
        println!("{}", received[4]);
    }
    assert_no_checksum_errors(&wire, &mut guest);
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(counter(&log, "tx_segmented") > 50, "{log}");
    assert!(counter(&log, "rx_coalesced") > 50, "{log}");
}
