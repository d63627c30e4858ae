//! What offloads, modes and MTUs do to TCP: two guests in turns. `tests/run-system-tests measure_NAME --ignored --nocapture`.

use ringwire_tests::{Options, Wire};

use crate::offload::boot_on;

/// Mbit/s, from iperf3's line for the receiver.
fn speed(text: &str) -> f64 {
    let line = text.lines().find(|line| line.ends_with("receiver"));
    let words: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "Mbits/sec");
    unit.and_then(|at| words[at - 1].parse().ok())
        .unwrap_or_else(|| panic!("no speed in {text}"))
}

/// `tests/run-system-tests measure_offloads --ignored --nocapture`: TCP with and without offloads, in turns.
#[test]
#[ignore = "measures, and checks nothing"]
fn measure_offloads() {
    let without = |options: Options<'static>| {
        options
            .arg("--device")
            .arg("virtio-net-pci,netdev=net0,csum=off")
    };
    measure([1500; 2], ["", ""], without);
}

/// The same with checksums left to the kernel and with ours: `measure_tx_metadata`.
#[test]
#[ignore = "measures, and checks nothing"]
fn measure_tx_metadata() {
    measure([1500; 2], [",tx-metadata=on", ""], |options| options);
}

/// The same in skb mode, where the far end's TCP comes in frames that it left whole, and natively: `measure_uncut`.
#[test]
#[ignore = "measures, and checks nothing"]
fn measure_uncut() {
    measure([1500; 2], [",mode=skb", ""], |options| options);
}

/// The same with the largest MTU there is, so that nothing needs to be cut, and with the usual one: `measure_mtu`.
#[test]
#[ignore = "measures, and checks nothing"]
fn measure_mtu() {
    measure([65_535, 1500], ["", ""], |options| options);
}

/// TCP of two guests in turns, by the MTU of their wires, the keys of their netdevs, and by what else the second one is
/// started with.
fn measure(mtus: [u32; 2], keys: [&str; 2], second: impl Fn(Options<'static>) -> Options<'static>) {
    let wires = mtus.map(|mtu| {
        let wire = Wire::new();
        wire.near(&format!("ip link set {} mtu {mtu}", Wire::IFNAME));
        wire.far(&format!("ip link set {} mtu {mtu}", Wire::PEER_IFNAME));
        wire
    });
    let [one, other] = &wires;
    let mut guests = [
        boot_on(one, Options::new().on_with(one, keys[0])),
        boot_on(other, second(Options::new()).on_with(other, keys[1])),
    ];
    let server = |wire: &Wire| {
        wire.far_background("iperf3 --server --forceflush")
            .after_line("listening")
    };
    let _servers: Vec<_> = wires.iter().map(server).collect();
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..5 {
        for (at, reverse) in ["", "-R"].into_iter().enumerate() {
            for (which, guest) in guests.iter_mut().enumerate() {
                let text = guest.ok(&format!(
                    "iperf3 -c {} -t 3 -O 1 -f m {reverse}",
                    Wire::PEER
                ));
                figures[2 * at + which].push(speed(&text));
            }
        }
    }
    let names = [
        "guest to wire, first",
        "guest to wire, second",
        "wire to guest, first",
        "wire to guest, second",
    ];
    for (name, all) in names.iter().zip(&mut figures) {
        all.sort_by(f64::total_cmp);
        println!("{name}: {:.0} Mbit/s of {all:.0?}", all[all.len() / 2]);
    }
    for mut guest in guests {
        guest.power_off();
        for line in guest
            .log()
            .lines()
            .filter(|line| line.contains("netdev 'net0': "))
        {
            println!("{line}");
        }
    }
}
