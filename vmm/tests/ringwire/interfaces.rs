//! Interfaces of other kinds than veth, and by other names: what `check`, `run` and `open` say of them. Needs root.

use std::process::Command;

use crate::{
    guest::Code,
    process::{Outcome, outcome, ringwire, run},
    wire::{Wire, can_run, ip, is_root},
};

/// What each of the three says of an interface, with these options.
fn all_of(netdev: &str) -> [Outcome; 3] {
    let kernel = Code::new().power_off().kernel();
    let mut check = ringwire(&["check", netdev]);
    let mut run = run(kernel.as_path(), &["--netdev", netdev]);
    let mut open = ringwire(&["open", "--netdev", netdev, "--", "true", "{netdev}"]);
    [&mut check, &mut run, &mut open].map(outcome)
}

/// Adds `rwother`, and sets it up. Not every kernel has every kind.
fn add(words: &str) -> bool {
    let words: Vec<_> = words.split(' ').collect();
    let added = ip(&[&["link", "add", "name", "rwother"], &words[..]].concat()).is_some();
    if !added {
        println!("SKIPPED: this kernel has no {words:?}");
    }
    added && ip(&["link", "set", "rwother", "up"]).is_some()
}

fn mac(ifname: &str) -> String {
    let link = ip(&["-oneline", "link", "show", ifname]).expect("it is there");
    let mut words = link.split(' ').skip_while(|word| *word != "link/ether");
    words.nth(1).expect("an address").to_owned()
}

#[test]
fn an_interface_without_ethernet_is_refused_alike() {
    if !can_run() {
        return;
    }
    // For the network namespace.
    let _wire = Wire::new();
    if ip(&["tuntap", "add", "mode", "tun", "name", "rwother"]).is_none() {
        println!("SKIPPED: this kernel has no tun");
        return;
    }
    ip(&["link", "set", "rwother", "up"]).unwrap();
    let words = "rwother can't be used: it carries no Ethernet frames, its link type is none";
    let [check, run, open] = all_of("af-xdp,ifname=rwother");
    assert_eq!((check.code(), check.stderr.as_str()), (1, ""), "{check:?}");
    assert!(check.stdout.contains(&format!("\nproblem: {words}")));
    run.assert_fails(1, words);
    open.assert_fails(1, words);
}

#[test]
fn native_mode_on_ports_is_refused_alike() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    if !add("type bridge") {
        return;
    }
    ip(&["link", "set", &wire.name, "master", "rwother"]).unwrap();
    for option in ["mode=native", "require=native", "require=zerocopy"] {
        let [check, run, open] = all_of(&format!("af-xdp,ifname=rwother,{option}"));
        let words = format!("rwother has ports ({})", wire.name);
        let fix = format!("Use a port itself, such as {}", wire.name);
        assert_eq!(check.code(), 1, "{check:?}");
        assert!(check.stdout.contains(&words), "{}", check.stdout);
        assert!(check.stdout.contains(&fix), "{}", check.stdout);
        for end in [run, open] {
            end.assert_fails(1, &words);
            end.assert_fails(1, &fix);
        }
    }
    let [check, run, open] = all_of("af-xdp,ifname=rwother,frames=64");
    assert_eq!((check.code(), run.code(), open.code()), (0, 0, 0));
    // The port works as well; its bridge does without.
    let what = format!("{} is a port of rwother (bridge)", wire.name);
    let [check, run, open] = all_of(&wire.netdev());
    let said = [check.stdout, run.stderr, open.stderr];
    assert!(said.iter().all(|text| text.contains(&what)), "{said:?}");
    wire.assert_clean();
}

#[test]
fn a_macvlan_s_own_address_is_asked_for_and_silences_that() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    if !add(&format!("link {} type macvlan mode bridge", wire.name)) {
        return;
    }
    let mac = mac("rwother");
    let netdev = "af-xdp,ifname=rwother,frames=64";
    let [check, run_it, open] = all_of(netdev);
    let note = format!("is to its own address, {mac}, or to groups");
    let fix = format!("mac={mac} for the guest's card");
    for said in [&check.stdout, &run_it.stderr] {
        assert!(said.contains(&note) && said.contains(&fix), "{said}");
    }
    let ends = [check.code(), run_it.code(), open.code()];
    assert_eq!(ends, [0, 0, 0], "{open:?}");
    // All three of VLANs.
    let tags = "VLAN tags are taken off the frames before they come to rwother";
    for said in [&check.stdout, &run_it.stderr, &open.stderr] {
        assert!(said.contains(tags), "{said}");
    }
    let kernel = Code::new().power_off().kernel();
    let device = format!("virtio-net-pci,netdev=net0,mac={mac}");
    let arguments = ["--netdev", netdev, "--device", &device];
    let end = outcome(&mut run(kernel.as_path(), &arguments));
    assert_eq!(end.code(), 0, "{end:?}");
    assert!(!end.stderr.contains("own address"), "{end:?}");
}

#[test]
fn alternative_names_are_names() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let long = "an-alternative-name-of-more-than-15-bytes";
    for name in ["rwshort", long] {
        ip(&[
            "link", "property", "add", "dev", &wire.name, "altname", name,
        ])
        .unwrap();
        for end in all_of(&format!("af-xdp,ifname={name},frames=64")) {
            assert_eq!(end.code(), 0, "{end:?}");
        }
        // Whatever they are called, two cards can't use one interface.
        let kernel = Code::new().power_off().kernel();
        let (one, two) = (wire.netdev(), format!("af-xdp,ifname={name}"));
        let arguments = ["--netdev", &one, "--netdev", &two];
        let end = outcome(&mut run(kernel.as_path(), &arguments));
        let words = "is used by netdev 'net0' and by netdev 'net1'";
        end.assert_fails(1, words);
    }
    let end = outcome(&mut ringwire(&["check", &format!("af-xdp,ifname={long}")]));
    let row = format!("interface        {} (index ", wire.name);
    assert!(end.stdout.contains(&row), "{}", end.stdout);
    wire.assert_clean();
}

/// In a user namespace of its own, with all of its rights.
fn in_user_namespace(words: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).args(words);
    command
}

#[test]
fn rights_of_a_user_namespace_are_told_from_those_that_count() {
    if !is_root() {
        return;
    }
    let program = env!("CARGO_BIN_EXE_ringwire");
    let wire = Wire::new();
    if !in_user_namespace(&["true"]).status().unwrap().success() {
        println!("SKIPPED: this system makes no user namespaces");
        return;
    }
    // With a network of its own, over which CAP_NET_RAW does count.
    let mut check = in_user_namespace(&["--net", program, "check", "af-xdp,ifname=lo"]);
    let end = outcome(&mut check);
    assert_eq!(end.code(), 1, "{end:?}");
    for words in [
        "CAP_BPF          missing",
        "CAP_NET_ADMIN    missing",
        "CAP_IPC_LOCK     missing",
        "CAP_NET_RAW      held",
        "This process is in a user namespace, whose capabilities do not count for that",
        "fix: run it outside of the user namespace, or with sockets that",
    ] {
        assert!(end.stdout.contains(words), "'{words}' in {}", end.stdout);
    }
    let open = ["open", "--netdev", "af-xdp,ifname=lo", "--", "true"];
    let open = [&["--net", program], &open[..], &["{netdev}"]].concat();
    let words = "is in a user namespace, whose capabilities do not count for that";
    let end = outcome(&mut in_user_namespace(&open));
    assert!(end.code() == 1 && end.stderr.contains(words), "{end:?}");
    // The fix, followed: sockets from outside. Without a word of rights that it has not.
    let inner = "unshare --user \"$1\" check \"$2\"";
    let mut command = ringwire(&["open", "--netdev", &wire.netdev(), "--"]);
    command.args(["sh", "-c", inner, "sh", program, "{netdev}"]);
    let end = outcome(&mut command);
    assert_eq!(end.code(), 0, "{end:?}");
    assert!(end.stdout.contains(": yes, "), "{}", end.stdout);
    wire.assert_clean();
}
