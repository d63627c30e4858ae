//! `ringwire check`: what it finds on real interfaces. Needs root.

use std::process::Command;

use net_afxdp::{Port, PortConfig};
use serde_json::Value;

use crate::{
    process::{Outcome, outcome, ringwire},
    wire::{Wire, ip, is_root},
};

/// `ringwire check NETDEV` under `setpriv` or the like, in words.
fn words_under(wrapper: &[&str], netdev: &str) -> Outcome {
    let (first, rest) = wrapper.split_first().unwrap();
    let mut command = Command::new(first);
    let program = env!("CARGO_BIN_EXE_ringwire");
    outcome(command.args(rest).args([program, "check", netdev]))
}

/// The same in JSON, with more arguments, and whether the exit status says yes.
fn json(netdev: &str, arguments: &[&str]) -> (Value, bool) {
    let end = outcome(ringwire(&["check", netdev, "--json"]).args(arguments));
    let value: Value = serde_json::from_str(&end.stdout).unwrap();
    assert_eq!(value["works"], end.code() == 0, "{end:?}");
    (value, end.code() == 0)
}

/// The answer is no, and some problem has these words in it and a fix.
fn assert_no(end: &Outcome, words: &str) {
    assert_eq!((end.code(), end.stderr.as_str()), (1, ""), "{end:?}");
    let mut lines = end.stdout.lines();
    assert!(lines.next().unwrap().contains(": no, "), "{end:?}");
    let problem = lines.find(|line| line.starts_with("problem: ") && line.contains(words));
    assert!(problem.is_some(), "'{words}' is not in {}", end.stdout);
    assert!(lines.next().unwrap().starts_with("  fix: "), "{end:?}");
}

fn check(netdev: &str) -> Outcome {
    words_under(&["env"], netdev)
}

#[test]
fn an_interface_that_can_be_used() {
    if !is_root() {
        return;
    }
    let wire = Wire::with_queues(2);
    let netdev = format!("{},queues=2", wire.netdev());
    let end = check(&netdev);
    assert_eq!((end.code(), end.stderr.as_str()), (0, ""), "{end:?}");
    let answer = format!("af-xdp on {}: yes, ", wire.name);
    assert!(end.stdout.starts_with(&answer), "{}", end.stdout);
    for words in [
        "driver           veth",
        "queues           2, at most 2",
        "XDP program      none",
        "load a program   works (tried)",
        "8 MiB needed, the limit is ",
    ] {
        assert!(end.stdout.contains(words), "'{words}' in {}", end.stdout);
    }
    // What a VLAN interface at the other end would leave beside its frames, with its fix, and that followed.
    let off = "txvlan off tx-vlan-stag-hw-insert off";
    let fix = format!("ethtool -K {} {off}", wire.peer);
    let note = format!("fix: `{fix}`, if VLANs are used there");
    assert!(end.stdout.contains(&note), "{}", end.stdout);
    let mut words = fix.split(' ');
    let mut ethtool = Command::new(words.next().unwrap());
    assert!(ethtool.args(words).status().unwrap().success());
    let (json, works) = json(&netdev, &[]);
    assert!(
        works && json["problems"].as_array().unwrap().is_empty(),
        "{json}"
    );
    assert_eq!(json["interface"]["queues"], 2);
    assert_eq!(json["memory"]["needed"], 8 << 20);
    assert_eq!(json["abilities"]["load"]["state"], "tried");
    assert!(json["trial"].is_null());
    wire.assert_clean();
}

#[test]
fn a_trial_tells_the_mode() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let (value, works) = json(&wire.netdev(), &["--try"]);
    assert!(works, "{value}");
    assert_eq!(value["trial"]["mode"], "native");
    assert_eq!(value["trial"]["zero_copy"], false);
    assert_eq!(value["trial"]["mtu"], 1500);
    assert_eq!(value["trial"]["tx_checksum"], false);
    assert_eq!(value["features"]["tx_checksum"], false);
    assert_eq!(value["abilities"]["tx_checksum"]["state"], "refused");
    wire.assert_clean();
}

/// A veth says nothing of checksums, but its kernel takes them in copy mode, from Linux 6.8 on.
#[test]
fn checksums_can_be_left_to_the_kernel() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let netdev = format!("{},tx-metadata=on", wire.netdev());
    let (value, works) = json(&netdev, &["--try"]);
    if works {
        assert_eq!(value["trial"]["tx_checksum"], true, "{value}");
    } else {
        let what = value["problems"][0]["what"].as_str().unwrap_or_default();
        assert!(what.contains("Linux 6.8 and later do"), "{value}");
    }
    let end = check(&format!("{},tx-metadata=on,zero-copy-tx=on", wire.netdev()));
    end.assert_fails(1, "tx-metadata=on is not possible with zero-copy-tx=on");
    wire.assert_clean();
}

/// What a local sender leaves in one frame is lost in skb mode: that is known before, and does not block. From Linux 6.6
/// on that is UDP_SEGMENT only.
#[test]
fn large_frames_in_skb_mode_are_a_note() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let end = check(&format!("{},mode=skb", wire.netdev()));
    assert_eq!(end.status.code(), Some(0), "{}", end.stdout);
    let notes = [
        ("note: datagrams that", "-K PEER tx-udp-segmentation off`"),
        ("note: TCP segments that", "-K PEER tso off gso off`"),
    ];
    let has = |text: &str| notes.map(|(what, fix)| text.contains(what) && text.contains(fix));
    assert_ne!(has(&end.stdout), [false, false], "{}", end.stdout);
    assert_ne!(has(&end.stdout), [true, true], "{}", end.stdout);
    let native = check(&wire.netdev());
    assert_eq!(has(&native.stdout), [false, false], "{}", native.stdout);
    wire.assert_clean();
}

#[test]
fn what_is_in_the_way_is_named_with_its_fix() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let netdev = wire.netdev();
    assert_no(
        &check("af-xdp,ifname=rw-not-there"),
        "there is no network interface",
    );
    assert_no(
        &check(&format!("{netdev},queues=7")),
        "but 7 from 0 on are asked",
    );
    assert_no(
        &check(&format!("{netdev},start-queue=1")),
        "but 1 from 1 on are",
    );
    assert_no(
        &check(&format!("{netdev},require=zerocopy")),
        "zero-copy does not work",
    );
    let no_rights = ["setpriv", "--bounding-set=-net_admin,-bpf,-sys_admin"];
    assert_no(&words_under(&no_rights, &netdev), "CAP_NET_ADMIN");
    let no_sockets = ["setpriv", "--bounding-set=-net_raw"];
    assert_no(
        &words_under(&no_sockets, &netdev),
        "sockets can't be created",
    );
    let port = PortConfig {
        ifname: wire.name.clone(),
        frames: 64,
        ..PortConfig::default()
    };
    let other = Port::open(&port).unwrap();
    assert_no(&check(&netdev), "another XDP program is on");
    let (value, _) = json(&netdev, &[]);
    assert_eq!(value["program"]["mode"], "native", "{value}");
    drop(other);
    wire.assert_clean();
}

#[test]
fn what_memory_may_be_locked_is_told() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let little = [
        "prlimit",
        "--memlock=65536",
        "setpriv",
        "--bounding-set=-ipc_lock",
    ];
    assert_no(
        &words_under(&little, &wire.netdev()),
        "4096 KiB of memory can't be locked",
    );
    let enough = [
        "prlimit",
        "--memlock=1048576",
        "setpriv",
        "--bounding-set=-ipc_lock",
    ];
    let in_place = format!("af-xdp,ifname={},frames=64,zero-copy-tx=on", wire.name);
    let end = words_under(&enough, &in_place);
    let note = "zero-copy-tx=on locks all memory of the guest, times 1 (queues)";
    assert!(end.code() == 0 && end.stdout.contains(note), "{end:?}");
    wire.assert_clean();
}

#[test]
fn what_others_hand_over() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let script = "\"$1\" check \"$2\"; echo status $?; \"$1\" check \"$2,require=zerocopy\"";
    let ringwire = env!("CARGO_BIN_EXE_ringwire");
    let mut command = Command::new(ringwire);
    command.args(["open", "--netdev", &wire.netdev(), "--"]);
    command.args(["sh", "-c", script, "sh", ringwire, "{netdev}"]);
    let end = outcome(&mut command);
    assert!(end.stdout.contains("\nstatus 0\n"), "{end:?}");
    assert_eq!(end.code(), 1, "{end:?}");
    let absent = format!("{},inhibit=on,map-path=/nonexistent/map", wire.netdev());
    assert_no(&check(&absent), "/nonexistent/map");
    let closed = format!("{},inhibit=on,sock-fds=1000000", wire.netdev());
    assert_no(&check(&closed), "1000000 of sock-fds can't be used");
    wire.assert_clean();
}

#[test]
fn notes_are_no_obstacles() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    ip(&["link", "set", &wire.name, "down"]).unwrap();
    let end = check(&wire.netdev());
    assert_eq!(end.code(), 0, "{end:?}");
    assert!(end.stdout.contains("\nnote: "), "{}", end.stdout);
    assert!(end.stdout.contains("is down"), "{}", end.stdout);
    let (value, _) = json(&wire.netdev(), &[]);
    assert_eq!(value["problems"][0]["blocks"], false, "{value}");
    assert_eq!(value["interface"]["up"], false);
}

#[test]
fn queues_that_bypass_the_guest_are_a_note() {
    if !is_root() {
        return;
    }
    let wire = Wire::with_queues(3);
    let end = check(&wire.netdev());
    assert_eq!(end.code(), 0, "{end:?}");
    for words in [
        "\nnote: ",
        "of which queue 0 is opened: what arrives on 1, 2 goes past them to the host",
        &format!("\n  fix: `ethtool -L {} rx 1 tx 1`; or queues=3", wire.name),
    ] {
        assert!(end.stdout.contains(words), "'{words}' in {}", end.stdout);
    }
    let (value, _) = json(&wire.netdev(), &[]);
    assert_eq!(value["problems"][0]["blocks"], false, "{value}");
}

#[test]
fn options_that_are_none_are_usage() {
    for netdev in ["tap,ifname=a", "af-xdp", "af-xdp,ifname=a,inhibit=on"] {
        check(netdev).assert_fails(2, "check");
    }
    check("af-xdp,ifname=a,queues=0").assert_fails(1, "0 queues are not possible");
    let sockets = "af-xdp,ifname=a,inhibit=on,sock-fds=3";
    outcome(&mut ringwire(&["check", sockets, "--try"]))
        .assert_fails(1, "sock-fds can be used once only");
}

#[test]
fn kvm_answers_in_json_too() {
    let end = outcome(&mut ringwire(&["check", "kvm", "--json"]));
    let value: Value = serde_json::from_str(&end.stdout).unwrap();
    assert_eq!(value["works"], end.code() == 0, "{end:?}");
    assert!(value["why"].is_string());
}
