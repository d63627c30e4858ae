//! What a Linux guest asks of its card through the control queue, by the tools that its users have.

use std::{
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use net_afxdp::{Port, PortConfig, Queue};
use ringwire_tests::{Guest, Options, Wire, by_pair};
use rustix::process::Signal;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Frames of one kind in a row.
const FRAMES: usize = 20;

const OTHER: [u8; 6] = [2, 0, 0, 0, 0x99, 0x99];
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// For local experiments.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// The far end's interface, in the hands of the test instead of the kernel's.
struct Far {
    _port: Port,
    queues: Vec<Queue>,
}

impl Far {
    fn open(wire: &Wire, queues: u32) -> Self {
        let config = PortConfig {
            ifname: Wire::PEER_IFNAME.to_owned(),
            queues,
            frames: 512,
            ..PortConfig::default()
        };
        // The interface's namespace is entered by a thread that ends with this.
        let opened = thread::scope(|scope| {
            let enter_and_open = || {
                wire.enter(false);
                Port::open(&config)
            };
            scope.spawn(enter_and_open).join()
        });
        let mut port = opened
            .expect("it does not panic")
            .unwrap_or_else(|error| panic!("{error}"));
        let queues = port.take_queues();
        Self {
            _port: port,
            queues,
        }
    }

    /// Sends a frame by each queue in turn.
    fn send(&mut self, destination: [u8; 6], tag: &[u8], kind: [u8; 2], count: usize) {
        let frame = [&destination[..], &SENDER, tag, &kind, &[0x5a; 60]].concat();
        let deadline = Instant::now() + PATIENCE;
        let queues = self.queues.len();
        for number in 0..count {
            let queue = &mut self.queues[number % queues];
            let fill = |buffer: &mut [u8]| buffer.copy_from_slice(&frame);
            while queue.room() == 0 {
                assert!(Instant::now() < deadline, "there is no room to send");
                let _ = queue.flush();
            }
            queue.send(frame.len(), fill).expect("there is room");
            queue.flush().expect("the link is up");
        }
    }

    /// Waits until `count` frames came that `wanted` knows.
    fn wait(&mut self, what: &str, count: usize, wanted: impl Fn(&[u8]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut came = 0;
        while came < count {
            assert!(Instant::now() < deadline, "{came} of {count}: {what}");
            for queue in &mut self.queues {
                queue.receive(64, |fragments| {
                    came += usize::from(wanted(&fragments.concat()));
                    ControlFlow::Continue(())
                });
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn mac(guest: &mut Guest) -> [u8; 6] {
    let text = guest.ok("cat /sys/class/net/eth0/address");
    let bytes = text.trim().split(':');
    let bytes: Vec<u8> = bytes
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte of an address"))
        .collect();
    bytes.try_into().expect("six bytes")
}

/// A counter of the card as it is now.
fn counter(guest: &Guest, name: &str) -> u64 {
    let asked = guest.log().matches("': guest, on").count();
    guest.signal(Signal::USR1);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = guest.log();
        if log.matches("': guest, on").count() > asked && log.ends_with('\n') {
            let line = log.lines().rfind(|line| line.contains("': guest, on"));
            let word = format!(" {name}=");
            let value = line.and_then(|line| line.split_once(&word));
            let digits = value.and_then(|(_, rest)| rest.split(' ').next());
            let number = digits.and_then(|digits| digits.parse().ok());
            return number.unwrap_or_else(|| panic!("no counter {name}: {log}"));
        }
        assert!(Instant::now() < deadline, "no counters: {log}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `probe` is true.
fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !probe() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn received(guest: &mut Guest, interface: &str) -> usize {
    let file = format!("/sys/class/net/{interface}/statistics/rx_packets");
    let text = guest.ok(&format!("cat {file}"));
    text.trim().parse().expect("a number")
}

#[test]
fn linux_sets_its_card_up_as_its_users_want() {
    let wire = Wire::new();
    let mut guest = Guest::boot(Options::new().on(&wire));
    let ping = format!("ping -c 3 -W 10 {}", Wire::PEER);
    let text = guest.ok("ethtool eth0");
    assert!(text.contains("Speed: 10000Mb/s"), "{text}");
    assert!(text.contains("Duplex: Full"), "{text}");

    guest.ok("ethtool -C eth0 rx-usecs 300 rx-frames 16 tx-usecs 100 tx-frames 8");
    let text = guest.ok("ethtool -c eth0");
    let words: Vec<_> = text.split_whitespace().collect();
    for setting in [
        ["rx-usecs:", "300"],
        ["rx-frames:", "16"],
        ["tx-frames:", "8"],
    ] {
        assert!(words.windows(2).any(|pair| pair == setting), "{text}");
    }
    guest.ok(&ping);
    guest.ok("ethtool -C eth0 rx-usecs 0 rx-frames 0 tx-usecs 0 tx-frames 1");

    let before = mac(&mut guest);
    guest.ok("ip link set eth0 address 02:00:00:00:77:77");
    assert_eq!(mac(&mut guest), [2, 0, 0, 0, 0x77, 0x77]);
    assert_ne!(mac(&mut guest), before);
    guest.ok(&ping);

    hears_what_it_wants(&mut guest, &wire);
    let messages = guest.ok("dmesg");
    for complaint in ["Failed to", "failed to", "Fail to"] {
        assert!(
            !messages
                .lines()
                .any(|line| line.contains("virtio_net") && line.contains(complaint)),
            "{messages}"
        );
    }
    assert_eq!(counter(&guest, "control_refused"), 0);
    assert!(guest.power_off().success(), "{}", guest.log());
}

/// Frames to others, to a VLAN, and an announcement on request.
fn hears_what_it_wants(guest: &mut Guest, wire: &Wire) {
    let own = mac(guest);
    let count = FRAMES as u64;
    // Its kernel solicits routers at any time, to a group that the guest is not in: that would be counted, too.
    wire.far(&format!(
        "sysctl -q -w net.ipv6.conf.{}.disable_ipv6=1",
        Wire::PEER_IFNAME
    ));
    let mut far = Far::open(wire, 1);
    let dropped = counter(guest, "rx_filtered");
    far.send(OTHER, &[], EXPERIMENT, FRAMES);
    eventually("frames to others are dropped", || {
        counter(guest, "rx_filtered") == dropped + count
    });
    guest.ok("ip link set eth0 promisc on");
    let heard = received(guest, "eth0");
    far.send(OTHER, &[], EXPERIMENT, FRAMES);
    eventually("a promiscuous guest hears them", || {
        received(guest, "eth0") >= heard + FRAMES
    });
    guest.ok("ip link set eth0 promisc off");
    assert_eq!(counter(guest, "rx_filtered"), dropped + count);

    let tag = [0x81, 0, 0, 7];
    far.send(own, &tag, EXPERIMENT, FRAMES);
    eventually("a VLAN that it is not in", || {
        counter(guest, "rx_filtered") == dropped + 2 * count
    });
    guest.ok("iproute2 link add link eth0 name v7 type vlan id 7");
    guest.ok("ip link set v7 up");
    far.send(own, &tag, EXPERIMENT, FRAMES);
    eventually("a VLAN that it is in", || received(guest, "v7") >= FRAMES);
    assert_eq!(counter(guest, "rx_filtered"), dropped + 2 * count);

    guest.signal(Signal::USR2);
    let address = Wire::GUEST
        .split('.')
        .map(|byte| byte.parse().expect("a byte"));
    let address: Vec<u8> = address.collect();
    // From its own address about its own address (RFC 5227, 3).
    far.wait("a gratuitous ARP", 1, |frame| {
        let arp = frame.get(12..14) == Some(&[8, 6]);
        let [sender, target] = [28..32, 38..42].map(|range| frame.get(range));
        arp && sender == Some(&address[..]) && target == sender
    });
}

/// The card's own statistics `name` of all queues of a kind (`rx`, `tx`), or of the control queue (`cq`), as the guest's
/// `ethtool -S` has them. Linux knows of them from 6.10 on.
fn statistic(guest: &mut Guest, kind: &str, name: &str) -> u64 {
    let text = guest.ok("ethtool -S eth0");
    let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
    let values = lines.filter_map(|(line, value)| {
        let rest = line.strip_prefix(kind)?;
        let of_it = rest.trim_start_matches(|it: char| it.is_ascii_digit());
        // Without the number of a queue it is their sum.
        let counts = of_it.strip_prefix("_hw_") == Some(name) && (of_it != rest || kind == "cq");
        counts.then(|| value.parse::<u64>().expect("a number"))
    });
    let values: Vec<_> = values.collect();
    assert!(!values.is_empty(), "no {name} of {kind}: {text}");
    values.iter().sum()
}

/// What the card counts is what went through it: for a guest that asks for it (Linux 6.10 or later).
pub(crate) fn shows_what_the_card_counts(guest: &mut Guest) {
    let names = [
        ("rx", "packets"),
        ("rx", "bytes"),
        ("tx", "packets"),
        ("tx", "bytes"),
    ];
    let all = |guest: &mut Guest| names.map(|(kind, name)| statistic(guest, kind, name));
    let before = all(guest);
    // Of 1042 bytes each.
    guest.ok(&format!(
        "ping -q -c 20 -i 0.05 -W 10 -s 1000 {}",
        Wire::PEER
    ));
    let after = all(guest);
    let moved: Vec<_> = after
        .iter()
        .zip(before)
        .map(|(now, then)| now - then)
        .collect();
    // There may be some of the kernel's own, too.
    for (moved, least) in moved.iter().zip([20, 20_840, 20, 20_840]) {
        assert!(
            (least..2 * least).contains(moved),
            "{names:?}: {moved} of {least}"
        );
    }
    let commands = statistic(guest, "cq", "command_num");
    assert!(
        statistic(guest, "cq", "command_num") > commands,
        "that was one itself"
    );
    assert!(statistic(guest, "tx", "notifications") > 0);
    assert!(statistic(guest, "rx", "interrupts") > 0);
    assert_eq!(counter(guest, "control_refused"), 0);
}

#[test]
fn a_guests_own_xdp_program_sends_frames_back() {
    // 2 pairs for its 2 CPUs, and 2 to send on by its program.
    let wire = Wire::with_queues(4);
    let mut guest = Guest::boot(Options::new().on_with(&wire, ",queues=4"));
    let own = mac(&mut guest);
    guest.ok("iproute2 link set dev eth0 xdpdrv object /bin/reflect.bpf.o section xdp");
    let text = guest.ok("iproute2 link show dev eth0");
    assert!(text.contains(" xdp "), "natively: {text}");
    let mut far = Far::open(&wire, 4);
    far.send(own, &[], EXPERIMENT, FRAMES);
    far.wait("frames that come back", FRAMES, |frame| {
        let [to, from] = [0..6, 6..12].map(|range| frame.get(range));
        frame.get(12..14) == Some(&EXPERIMENT)
            && to == Some(&SENDER)
            && from == Some(&own)
            && frame[14..].iter().all(|&byte| byte == 0x5a)
    });
    drop(far);
    // What the program lets pass is the kernel's, as before.
    let ping = format!("ping -c 3 -W 10 {}", Wire::PEER);
    guest.ok(&ping);
    guest.ok("iproute2 link set dev eth0 xdpdrv off");
    guest.ok(&ping);
    let messages = guest.ok("dmesg");
    assert!(!messages.contains("slower locked tx"), "{messages}");
    assert!(guest.power_off().success(), "{}", guest.log());
    let sent = by_pair(&guest.log(), "tx_packets");
    let by_program: u64 = sent.iter().skip(2).sum();
    assert!(by_program >= FRAMES as u64, "{sent:?}");
}
