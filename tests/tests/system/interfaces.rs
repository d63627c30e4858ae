//! Guests on interfaces of other kinds than veth, and 802.1ad.

use ringwire_tests::{Guest, Options, Setup, Wire};

/// What `ringwire check` prints in the VMM's namespace, and whether its answer is yes.
fn check(wire: &Wire, netdev: &str) -> (bool, String) {
    let mut command = wire.vmm_command(&Setup::ringwire());
    let output = command.args(["check", netdev]).output();
    let output = output.expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text)
}

/// Adds `other0` to the VMM's namespace.
fn add(wire: &Wire, words: &str) {
    wire.near(&format!("ip link add name other0 {words}"));
    wire.near("ip link set other0 addrgenmode none up");
}

/// Whether this kernel makes interfaces like that; says so if not.
fn can_add(wire: &Wire, words: &str) -> bool {
    let mut command = wire.vmm_command("ip".as_ref());
    let words: Vec<_> = words.split(' ').collect();
    let command = command.args(["link", "add", "name", "other0"]).args(&words);
    let can = command.status().is_ok_and(|it| it.success());
    if !can {
        println!("SKIPPED: this kernel has no {words:?}");
    }
    can
}

fn assert_passes(guest: &mut Guest) {
    guest.ok(&format!("ping -q -c 3 -W 5 {}", Wire::PEER));
}

fn end(mut guest: Guest) -> String {
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    log
}

/// A native program of a bond runs on its ports, whose frames do not come to sockets of the bond.
#[test]
fn a_guest_on_a_bond_receives_in_skb_mode() {
    let wire = Wire::new();
    add(&wire, "type bond mode active-backup miimon 100");
    let near = Wire::IFNAME;
    let (works, text) = check(&wire, "af-xdp,ifname=other0");
    assert!(works && text.contains("other0 has ports, and in"), "{text}");
    wire.near(&format!("ip link set {near} down"));
    wire.near(&format!("ip link set {near} master other0"));

    let (works, text) = check(&wire, "af-xdp,ifname=other0");
    let native = "native mode      does not work: other0 has ports (wire0), and in native mode";
    assert!(works && text.contains(native), "{text}");
    // Its 16 queues are not those that frames are spread over.
    assert!(!text.contains("spreads what it receives"), "{text}");
    assert!(!text.contains("ethtool -L other0"), "{text}");
    let (works, text) = check(&wire, "af-xdp,ifname=other0,mode=native");
    let fix = "fix: Use a port itself, such as wire0, or skb mode";
    assert!(!works && text.contains(fix), "{text}");

    let mut guest = Guest::boot(Options::new().on_interface(&wire, "other0"));
    assert_passes(&mut guest);
    let log = end(guest);
    assert!(log.contains("using skb mode, since other0 has"), "{log}");
    assert!(log.contains("other0, skb mode, copy"), "{log}");

    // The port itself works as well, in native mode.
    let mut guest = Guest::boot(Options::new().on(&wire));
    assert_passes(&mut guest);
    let log = end(guest);
    assert!(log.contains("wire0 is a port of other0 (bond)"), "{log}");
    assert!(log.contains("wire0, native mode"), "{log}");
}

/// With as many queues as the bond's ports have, which `ethtool -L` of the bond could not change.
#[test]
fn a_bond_s_frames_come_to_the_queues_of_its_ports() {
    let wire = Wire::with_queues(2);
    add(&wire, "type bond mode active-backup miimon 100");
    let near = Wire::IFNAME;
    wire.near(&format!("ip link set {near} down"));
    wire.near(&format!("ip link set {near} master other0"));
    let (works, text) = check(&wire, "af-xdp,ifname=other0");
    assert!(works, "{text}");
    for words in [
        "other0 spreads what it receives over 2 queues, of which queue 0 is opened",
        "fix: `ethtool -L wire0 rx 1 tx 1`; or queues=2,",
    ] {
        assert!(text.contains(words), "'{words}': {text}");
    }
    let (works, text) = check(&wire, "af-xdp,ifname=other0,queues=2");
    assert!(works && !text.contains("spreads"), "{text}");
    let mut guest = Guest::boot(Options::new().on_interface(&wire, "other0,queues=2"));
    assert_passes(&mut guest);
    end(guest);
}

#[test]
fn a_guest_on_a_vlan_interface_has_that_vlan() {
    let wire = Wire::new();
    add(&wire, &format!("link {} type vlan id 7", Wire::IFNAME));
    let far = Wire::PEER_IFNAME;
    wire.far(&format!("ip link add link {far} name v7 type vlan id 7"));
    wire.far("ip address add 10.79.0.1/24 dev v7");
    wire.far("ip link set v7 up");
    let mut guest = Guest::boot(Options::new().on_interface(&wire, "other0"));
    guest.ok("ip address add 10.79.0.2/24 dev eth0");
    guest.ok("ping -q -c 3 -W 5 10.79.0.1");
    let log = end(guest);
    assert!(log.contains("other0, skb mode"), "{log}");
}

#[test]
fn a_guest_on_a_macvlan_has_its_address() {
    let wire = Wire::new();
    add(
        &wire,
        &format!("link {} type macvlan mode bridge", Wire::IFNAME),
    );
    let mac = wire.near("cat /sys/class/net/other0/address");
    let options = Options::new().on_interface(&wire, "other0");
    let device = format!("virtio-net-pci,netdev=net0,mac={}", mac.trim());
    let mut guest = Guest::boot(options.arg("--device").arg(device));
    assert_passes(&mut guest);
    let log = end(guest);
    assert!(!log.contains("to its own address"), "{log}");
}

/// An ipvlan hands on by address of the network layer, too: that has to be the host's as well.
#[test]
fn a_guest_on_an_ipvlan_has_its_addresses() {
    let wire = Wire::new();
    add(&wire, &format!("link {} type ipvlan mode l2", Wire::IFNAME));
    let (works, text) = check(&wire, "af-xdp,ifname=other0");
    let note = "other0 is an ipvlan, which gets";
    assert!(works && text.contains(note), "{text}");
    let mac = wire.near("cat /sys/class/net/other0/address");
    let options = Options::new().on_interface(&wire, "other0");
    let device = format!("virtio-net-pci,netdev=net0,mac={}", mac.trim());
    let mut guest = Guest::boot(options.arg("--device").arg(device));
    let ping = format!("ping -q -c 3 -W 5 {}", Wire::PEER);
    assert_ne!(guest.run(&ping).status, 0, "without the address");
    wire.near(&format!("ip address add {}/32 dev other0", Wire::GUEST));
    assert_passes(&mut guest);
    end(guest);
}

#[test]
fn interfaces_without_ethernet_are_refused() {
    let wire = Wire::new();
    let mut refused = 0;
    for words in [
        "type wireguard",
        "type vrf table 10",
        &format!("link {} type ipvlan mode l3", Wire::IFNAME),
        &format!("link {} type ipvlan mode l3s", Wire::IFNAME),
        // Of modules that make interfaces of their own everywhere, so that the lab does not have them as a rule.
        "type gre local 10.9.0.1 remote 10.9.0.2",
        "type ipip local 10.9.0.1 remote 10.9.0.2",
        "type sit local 10.9.0.1 remote 10.9.0.2",
        "type vcan",
        "type nlmon",
    ] {
        if !can_add(&wire, words) {
            continue;
        }
        wire.near("ip link set other0 up");
        let (works, text) = check(&wire, "af-xdp,ifname=other0");
        assert!(
            !works && text.contains("other0 can't be used: it"),
            "{text}"
        );
        println!("{words}: {}", text.lines().last().unwrap_or_default());
        wire.near("ip link delete other0");
        refused += 1;
    }
    assert!(refused >= 4, "this kernel has hardly any kind");
}

/// Tags of 802.1ad come beside frames by an offload of their own.
#[test]
fn tags_of_802_1ad_need_an_offload_of_their_own_off() {
    let wire = Wire::new();
    let far = Wire::PEER_IFNAME;
    wire.far(&format!(
        "ip link add link {far} name service8 type vlan protocol 802.1ad id 8"
    ));
    wire.far("ip address add 10.79.0.1/24 dev service8");
    wire.far("ip link set service8 up");
    // The other end is in another network namespace, so it can't be looked at from here.
    let mut guest = Guest::boot(Options::new().on(&wire));
    assert_passes(&mut guest);
    guest.ok("iproute2 link add link eth0 name v8 type vlan protocol 802.1ad id 8");
    guest.ok("ip address add 10.79.0.2/24 dev v8 && ip link set v8 up");
    let ping = "ping -q -c 3 -W 5 10.79.0.1";
    wire.far(&format!("ethtool -K {far} txvlan off"));
    assert_ne!(guest.run(ping).status, 0, "with half of the advice");
    wire.far(&format!("ethtool -K {far} tx-vlan-stag-hw-insert off"));
    guest.ok(ping);
    end(guest);
}

/// A VLAN interface on the other end, where it can be seen: its frames would come without their tag.
#[test]
fn vlans_at_the_other_end_are_warned_of_if_there_are_any() {
    let wire = Wire::new();
    wire.near("ip link add other0 type veth peer name other1");
    let warning = "tags of a VLAN interface on other1, the other end of other0";
    let fix = "ethtool -K other1 txvlan off tx-vlan-stag-hw-insert off";
    let open = || {
        let mut command = wire.vmm_command(&Setup::ringwire());
        command.args(["open", "--netdev", "af-xdp,ifname=other0", "--"]);
        let output = command.args(["true", "{netdev}"]).output();
        let output = output.expect("it can be started");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(!open().contains(warning));
    let (_, text) = check(&wire, "af-xdp,ifname=other0");
    assert!(text.contains(warning) && text.contains(fix), "{text}");
    wire.near("ip link add link other1 name v9 type vlan id 9");
    let log = open();
    assert!(log.contains(warning) && log.contains(fix), "{log}");
    wire.near(fix);
    assert!(!open().contains(warning));
}
