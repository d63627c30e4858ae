//! The control queue's commands about reception, the card's address, and announcements, by drivers
//! good and bad (catalogue 27).

use devices::{testing::register, virtio::net::loopback::Loopback};

use crate::{guest::*, pairs_guest::*};

const CTRL_RX: u64 = 1 << 18;
const CTRL_VLAN: u64 = 1 << 19;
const CTRL_RX_EXTRA: u64 = 1 << 20;
const GUEST_ANNOUNCE: u64 = 1 << 21;
const CTRL_MAC_ADDR: u64 = 1 << 23;

type Mac = [u8; 6];

const OTHER: Mac = [0x52, 0x54, 0, 9, 9, 9];
const GROUP: Mac = [0x33, 0x33, 0, 0, 0, 1];
const BROADCAST: Mac = [0xff; 6];

fn frame(destination: Mac, vlan: Option<u16>) -> Vec<u8> {
    let tag = vlan.map(|vlan| [[0x81, 0], vlan.to_be_bytes()].concat());
    let rest = pattern(60, 5);
    [&destination[..], &OTHER, &tag.unwrap_or_default(), &rest].concat()
}

/// Sends a frame from the wire; whether the guest got it. A frame that is always wanted follows, so
/// that there is no need to wait for nothing.
fn hears(guest: &mut PairsGuest, mac: Mac, frame: &[u8]) -> bool {
    let last = [&mac[..], &[7; 60]].concat();
    send(&mut guest.wires[0], frame);
    send(&mut guest.wires[0], &last);
    let mut heard = false;
    loop {
        let what = "the frame that is always wanted";
        let received = devices::testing::wait_for(what, || guest.take_received(0));
        if received == last {
            return heard;
        }
        assert_eq!(received, frame);
        heard = true;
    }
}

/// Whether it hears what is to another station, to a group, to all.
fn hears_others(guest: &mut PairsGuest) -> [bool; 3] {
    [OTHER, GROUP, BROADCAST].map(|mac| hears(guest, MAC, &frame(mac, None)))
}

fn table(unicast: &[Mac], multicast: &[Mac]) -> Vec<u8> {
    let list = |macs: &[Mac]| {
        let count = u32::try_from(macs.len()).unwrap();
        [&count.to_le_bytes()[..], &macs.concat()].concat()
    };
    [&[1, 0][..], &list(unicast), &list(multicast)].concat()
}

fn start(name: &str) -> PairsGuest {
    PairsGuest::start(name, 1)
}

#[test]
fn a_driver_that_says_nothing_hears_everything() {
    for features in [0, CTRL_VQ, CTRL_VQ | CTRL_RX | CTRL_VLAN] {
        let mut guest = start("tctlall");
        guest.features = VERSION_1 | features;
        guest.boot();
        assert_eq!(hears_others(&mut guest), [true; 3]);
        assert!(hears(&mut guest, MAC, &frame(MAC, Some(7))));
        assert_eq!(guest.control.counters().rx_filtered, 0);
        guest.assert_sound();
    }
}

/// 5.1.6.5.1: each mode, on and off.
#[test]
fn modes_of_reception_are_in_force_when_they_are_answered() {
    let mut guest = start("tctlmode");
    assert_eq!(guest.command(&[0, 0, 0]), OK, "not promiscuous");
    assert_eq!(hears_others(&mut guest), [false, false, true]);
    assert_eq!(guest.control.counters().rx_filtered, 2);
    for (mode, expected) in [
        (0, [true, true, true]),
        (1, [false, true, true]),
        (2, [true, false, true]),
        (3, [false, false, true]),
        (5, [false, false, false]),
    ] {
        assert_eq!(guest.command(&[0, mode, 1]), OK);
        assert_eq!(hears_others(&mut guest), expected, "mode {mode}");
        assert_eq!(guest.command(&[0, mode, 0]), OK);
        assert_eq!(hears_others(&mut guest), [false, false, true]);
    }
    assert_eq!(guest.command(&[0, 4, 1]), OK, "no unicast");
    assert!(!hears(&mut guest, BROADCAST, &frame(MAC, None)));
    // A reset forgets all of it.
    guest.boot();
    assert_eq!(hears_others(&mut guest), [true; 3]);
    guest.assert_sound();
}

/// 5.1.6.5.2: the two lists, short, full, and too long to be looked through.
#[test]
fn tables_of_addresses_replace_each_other() {
    let mut guest = start("tctltab");
    assert_eq!(guest.command(&[0, 0, 0]), OK);
    let many = |count: u16| -> Vec<Mac> {
        let mac = |i: u16| [2, 0, 0, 0, i.to_be_bytes()[0], i.to_be_bytes()[1]];
        (0..count).map(mac).collect()
    };
    let nobody = [false, false, true];
    for (unicast, multicast, expected) in [
        (vec![OTHER], vec![], [true, false, true]),
        (vec![], vec![GROUP], [false, true, true]),
        (
            [many(63), vec![OTHER]].concat(),
            many(64),
            [true, false, true],
        ),
        (many(65), vec![GROUP], [true, true, true]),
        (vec![], many(65), [false, true, true]),
        (vec![], vec![], nobody),
    ] {
        let table = table(&unicast, &multicast);
        assert_eq!(guest.command(&table), OK);
        assert_eq!(hears_others(&mut guest), expected, "{} bytes", table.len());
    }
    assert_eq!(guest.command(&table(&[OTHER], &[GROUP])), OK);
    // What is refused changes nothing.
    let long = [&table(&[], &[])[..], &[0]].concat();
    let lies = [&[1, 0][..], &u32::MAX.to_le_bytes(), &[0; 64]].concat();
    let one_short = &table(&[], &[GROUP, GROUP])[..21];
    for bad in [&[1, 0][..], &[1, 0, 0, 0, 0, 0], &long, &lies, one_short] {
        assert_eq!(guest.command(bad), ERR, "{bad:x?}");
    }
    assert_eq!(hears_others(&mut guest), [true, true, true]);
    guest.assert_sound();
}

/// 27: a table of more entries than can be meant is refused, though it is all there.
#[test]
fn a_huge_table_is_refused() {
    let mut guest = start("tctlhuge");
    assert_eq!(guest.command(&[0, 0, 0]), OK);
    for (entries, answer) in [(4096, OK), (4097, ERR), (100_000, ERR)] {
        let stations = vec![OTHER; entries];
        let command = table(&stations, &[]);
        let at = guest.driver.allocate(command.len() + 1, 16);
        guest.driver.write_memory(at, &command);
        assert_eq!(guest.command_at(at, command.len()), answer, "{entries}");
    }
    assert_eq!(
        hears_others(&mut guest),
        [true, false, true],
        "the first one"
    );
    guest.assert_sound();
}

/// 5.1.6.5.3: each VLAN for itself.
#[test]
fn vlans_are_heard_one_by_one() {
    let mut guest = start("tctlvlan");
    assert_eq!(guest.command(&[0, 0, 0]), OK);
    let vlan = |guest: &mut PairsGuest, command, vlan: u16| {
        let [low, high] = vlan.to_le_bytes();
        guest.command(&[2, command, low, high])
    };
    for number in [1, 100, 4095] {
        let frame = frame(MAC, Some(number));
        assert!(!hears(&mut guest, MAC, &frame));
        assert_eq!(vlan(&mut guest, 0, number), OK);
        assert!(hears(&mut guest, MAC, &frame));
        assert_eq!(vlan(&mut guest, 1, number), OK);
        assert!(!hears(&mut guest, MAC, &frame));
    }
    assert!(hears(&mut guest, MAC, &frame(MAC, Some(0xa000))), "no VLAN");
    for number in [4096, 0x8001, u16::MAX] {
        assert_eq!(vlan(&mut guest, 0, number), ERR, "{number}");
    }
    for bad in [&[2, 0][..], &[2, 0, 1], &[2, 0, 1, 0, 0], &[2, 2, 1, 0]] {
        assert_eq!(guest.command(bad), ERR, "{bad:x?}");
    }
    assert_eq!(guest.command(&[0, 0, 1]), OK, "promiscuous");
    assert!(hears(&mut guest, MAC, &frame(MAC, Some(100))));
    guest.assert_sound();
}

#[test]
fn the_address_can_be_changed_until_the_reset() {
    let mut guest = start("tctlmac");
    assert_eq!(guest.command(&[0, 0, 0]), OK);
    let set = |mac: Mac| [&[1, 1][..], &mac].concat();
    assert_eq!(guest.command(&set(OTHER)), OK);
    assert_eq!(guest.driver.config::<6>(0), OTHER);
    assert_eq!(guest.control.mac(), OTHER);
    assert!(!hears(&mut guest, OTHER, &frame(MAC, None)), "the old one");
    assert!(hears(
        &mut guest,
        OTHER,
        &[&frame(OTHER, None)[..], &[1]].concat()
    ));
    for bad in [[0; 6], GROUP, BROADCAST] {
        assert_eq!(guest.command(&set(bad)), ERR);
    }
    assert_eq!(guest.command(&set(MAC)[..7]), ERR, "too short");
    assert_eq!(guest.command(&[&set(MAC)[..], &[0]].concat()), ERR);
    assert_eq!(guest.driver.config::<6>(0), OTHER, "unchanged");
    guest.boot();
    assert_eq!(guest.driver.config::<6>(0), MAC, "as it was made");
    assert_eq!(guest.control.mac(), MAC);
    guest.assert_sound();
}

/// 25, 27: no command without its feature.
#[test]
fn commands_need_their_features() {
    let mut guest = start("tctlneed");
    let address = [&[1, 1][..], &OTHER].concat();
    let commands: [(u64, &[u8]); 9] = [
        (CTRL_RX, &[0, 0, 0]),
        (CTRL_RX, &[0, 1, 1]),
        (CTRL_RX, &table(&[], &[])),
        (CTRL_RX_EXTRA, &[0, 2, 1]),
        (CTRL_RX_EXTRA, &[0, 5, 1]),
        (CTRL_VLAN, &[2, 0, 1, 0]),
        (CTRL_VLAN, &[2, 1, 1, 0]),
        (CTRL_MAC_ADDR, &address),
        (MQ, &[4, 0, 1, 0]),
    ];
    let offered = guest.features;
    for (feature, command) in commands {
        guest.features = offered & !feature;
        guest.boot();
        assert_eq!(guest.command(command), ERR, "{command:x?}");
        if feature != MQ {
            guest.features = offered;
            guest.boot();
            assert_eq!(guest.command(command), OK, "{command:x?}");
        }
    }
    guest.boot();
    for bad in [
        &[0, 0][..],
        &[0, 0, 2],
        &[0, 0, 1, 0],
        &[0, 6, 1],
        &[0, 255, 1],
    ] {
        assert_eq!(guest.command(bad), ERR, "{bad:x?}");
    }
    guest.assert_sound();
}

/// 5.1.6.5.4: asked for by the VMM or by a link that comes up, acknowledged once.
#[test]
fn the_guest_is_asked_to_announce_itself() {
    let mut guest = start("tctlann");
    let status = |guest: &mut PairsGuest| guest.driver.config::<2>(6);
    assert_eq!(guest.command(&[3, 0]), ERR, "nobody has asked");
    assert!(guest.control.announce());
    // The one of the control queue may come before it.
    while guest.driver.wait_interrupt() & 2 == 0 {}
    assert_eq!(status(&mut guest), [3, 0], "link up, announce");
    assert_eq!(guest.command(&[3, 0, 0]), ERR, "too long");
    assert_eq!(guest.command(&[3, 1]), ERR, "no such command");
    assert_eq!(guest.command(&[3, 0]), OK);
    assert_eq!(status(&mut guest), [1, 0]);
    guest.control.set_link(false);
    assert_eq!(status(&mut guest), [0, 0]);
    guest.control.set_link(true);
    assert_eq!(status(&mut guest), [3, 0], "it is back");
    guest.driver.write(register::STATUS, 0);
    assert_eq!(status(&mut guest), [1, 0], "the reset ends it");
    assert!(!guest.control.announce(), "there is no driver");
    assert_eq!(status(&mut guest), [1, 0]);
    guest.features &= !GUEST_ANNOUNCE;
    guest.boot();
    guest.control.set_link(false);
    guest.control.set_link(true);
    assert!(!guest.control.announce(), "it does not know how");
    assert_eq!(status(&mut guest), [1, 0]);
    assert_eq!(guest.command(&[3, 0]), ERR);
    guest.assert_sound();
}

/// A filter holds for all pairs, and for those that come into use later.
#[test]
fn the_filter_is_the_cards() {
    let ends = (0..2).map(|_| Loopback::pair(MAX_FRAME).unwrap());
    let (near, far) = ends.unzip();
    let mut guest = PairsGuest::plug_on("tctlmq", near, far);
    guest.boot();
    assert_eq!(guest.command(&[0, 0, 0]), OK);
    assert_eq!(guest.set_pairs(2), OK);
    for wire in [0, 1] {
        send(&mut guest.wires[wire], &frame(OTHER, None));
        guest.check_received(wire, wire, &frame(MAC, None));
    }
    assert_eq!(guest.control.counters().rx_filtered, 2);
    guest.assert_sound();
}
