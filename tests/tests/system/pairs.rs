//! Several queue pairs.

use ringwire_tests::{Guest, Options, Wire, by_pair};

#[test]
fn two_queue_pairs_both_carry_flows() {
    both_carry_flows(Options::new());
}

#[test]
fn two_queue_pairs_both_carry_flows_on_mmio() {
    both_carry_flows(Options::new().mmio());
}

fn both_carry_flows(options: Options<'_>) {
    let wire = Wire::with_queues(2);
    let mut guest = Guest::boot(options.on_with(&wire, ",queues=2"));
    let server = wire
        .far_background("iperf3 --server --forceflush")
        .after_line("listening");
    // Both ends choose the queue of a flow by its ports: sixteen of them do not all choose the same.
    let text = guest.ok(&format!("iperf3 -c {} -t 3 -P 16", Wire::PEER));
    assert!(text.contains("receiver"), "{text}");
    drop(server);
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(!wire.has_program(), "an XDP program was left: {log}");
    for name in ["rx_packets", "tx_packets"] {
        let counts = by_pair(&log, name);
        assert!(
            counts.len() == 2 && counts.iter().all(|&count| count > 20),
            "{name}: {counts:?}\n{log}"
        );
    }
}
