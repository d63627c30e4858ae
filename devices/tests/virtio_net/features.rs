//! What the card offers and shows.

use devices::{
    testing::{TestDriver, register, status},
    virtio::net::{LinkSpeed, NetDevice, NetError, loopback::Loopback},
};

use crate::guest::*;

#[test]
fn offers_what_it_can_do_and_no_more() {
    let mut guest = NetGuest::plug("tfeat");
    let offered = guest.driver.offered();
    // Checksums, TSO and USO both ways, and the switch for them.
    let offloads = 0b0011_1011_1000_0111 | 0b111 << 54;
    // Reception, VLANs, some more reception, announcements, the address, coalescing, statistics.
    let control = CTRL_VQ | 0xf << 18 | 1 << 23 | 3 << 52 | 1 << 50;
    let ring = INDIRECT_DESC | EVENT_IDX | VERSION_1 | RING_RESET;
    let expected = offloads | MTU_FEATURE | 1 << 5 | 1 << 16 | MRG_RXBUF | control | ring;
    assert_eq!(offered, expected);
    assert_eq!(guest.driver.read(register::DEVICE_ID), 1, "a network card");
    assert_eq!(guest.driver.config::<6>(0), MAC);
    assert_eq!(guest.driver.config::<2>(6), [1, 0], "link up");
    assert_eq!(guest.driver.config::<2>(10), 1500u16.to_le_bytes());
}

/// 25: what was not offered can't be had.
#[test]
fn features_that_were_not_offered_are_refused() {
    let mut guest = NetGuest::plug("t25");
    let offered = guest.driver.offered();
    for bit in (0..64u32).filter(|bit| offered >> bit & 1 == 0) {
        assert!(!guest.driver.negotiate(VERSION_1 | 1 << bit), "bit {bit}");
    }
    assert!(!guest.driver.negotiate(MRG_RXBUF), "the legacy interface");
    assert!(guest.driver.negotiate(VERSION_1));
    for bit in [18, 19, 20, 21, 23, 50, 52, 53] {
        let features = VERSION_1 | 1 << bit;
        assert!(!guest.driver.negotiate(features), "bit {bit} needs more");
        assert!(guest.driver.negotiate(features | CTRL_VQ));
    }
}

#[test]
fn the_speed_reaches_the_guest_where_it_is_known() {
    let (near, _far) = Loopback::pair(1514).unwrap();
    let (mut config, _) = config("tspeed");
    config.speed = LinkSpeed {
        mbps: Some(25_000),
        full_duplex: Some(true),
    };
    let device = NetDevice::new(config, vec![near]).unwrap();
    let control = device.control();
    let mut driver = TestDriver::on(crate::FACE, device);
    assert_ne!(driver.offered() & 1 << 63, 0, "SPEED_DUPLEX");
    assert_eq!(driver.config::<4>(12), 25_000u32.to_le_bytes());
    assert_eq!(driver.config::<1>(16), [1], "full duplex");
    control.set_speed(LinkSpeed {
        mbps: Some(u32::MAX),
        full_duplex: Some(false),
    });
    assert_eq!(driver.config::<4>(12), 0x7fff_ffffu32.to_le_bytes());
    assert_eq!(driver.config::<1>(16), [0]);
    control.set_speed(LinkSpeed::default());
    assert_eq!(driver.config::<4>(12), [0xff; 4], "not known any more");
    assert_eq!(driver.config::<1>(16), [0xff]);
}

#[test]
fn the_link_state_reaches_the_guest() {
    let mut guest = NetGuest::start("tlink");
    let generation = guest.driver.read(register::CONFIG_GENERATION);
    guest.control.set_link(true);
    assert!(!guest.driver.interrupted(), "nothing changed");
    guest.control.set_link(false);
    assert_eq!(guest.driver.wait_interrupt(), 2);
    assert_eq!(guest.driver.config::<2>(6), [0, 0]);
    assert_ne!(guest.driver.read(register::CONFIG_GENERATION), generation);
    guest.driver.write(register::STATUS, 0);
    guest.control.set_link(true);
    assert!(!guest.driver.interrupted(), "no driver, no interrupt");
    guest.boot();
    assert_eq!(guest.driver.config::<2>(6), [1, 0]);
    assert_eq!(guest.driver.status() & status::NEEDS_RESET, 0);
    guest.check_traffic();
}

#[test]
fn impossible_cards_are_refused() {
    let ends = || Loopback::pair(1514).unwrap();
    let refused = |mtu, mac: [u8; 6], count: usize| {
        let (near, far) = ends();
        let backends = [near, far].into_iter().take(count).collect();
        let (mut config, _) = config("tbad");
        config.mtu = mtu;
        config.mac = mac;
        NetDevice::new(config, backends).err()
    };
    assert_eq!(refused(Some(67), MAC, 1), Some(NetError::Mtu(67)));
    assert_eq!(
        refused(None, [1, 0, 0, 0, 0, 0], 1),
        Some(NetError::Mac([1, 0, 0, 0, 0, 0]))
    );
    assert_eq!(refused(None, [0; 6], 1), Some(NetError::Mac([0; 6])));
    assert_eq!(refused(None, MAC, 0), Some(NetError::Pairs(0)));
    assert_eq!(refused(None, MAC, 2), None, "two queue pairs");
    assert_eq!(refused(Some(1500), MAC, 1), None);
    let (near, _far) = Loopback::pair(81).unwrap();
    let short = NetDevice::new(config("tbad").0, vec![near]).unwrap_err();
    assert_eq!(short, NetError::Frame { max_frame: 81 });
    assert!(short.to_string().contains("68, needs 82"), "{short}");
}
