//! What happens to a card while a guest uses it.

use ringwire_tests::{Card, Guest, Wire, assert_frames_add_up};

use crate::guest::{boot, end, first_queue_only, streams};

/// Traffic that goes on by itself: from both ends, small and large.
fn with_traffic(wire: &Wire, guest: &mut Guest) -> ringwire_tests::Background {
    guest.ok(&format!(
        "ping -q -i 0.01 -s 1000 {} >/dev/null 2>&1 &",
        Wire::PEER
    ));
    wire.far_background(&format!("ping -q -i 0.01 -s 200 {}", Wire::GUEST))
}

/// 37.
#[test]
fn the_link_goes_down_and_comes_back_under_traffic() {
    let wire = Wire::of_cards();
    first_queue_only(&wire);
    let mut guest = boot(&wire, ",require=zerocopy");
    let traffic = with_traffic(&wire, &mut guest);
    for _ in 0..2 {
        wire.near(&format!("ip link set {} down", Wire::IFNAME));
        guest.wait_for_link(false);
        wire.near(&format!("ip link set {} up", Wire::IFNAME));
        wire.wait_for_carrier();
        guest.wait_for_link(true);
        guest.ok(&format!("ping -q -c 3 -i 0.5 -W 10 {}", Wire::PEER));
    }
    drop(traffic);
    end(&wire, guest);
}

/// 43.
#[test]
fn channels_change_under_traffic() {
    let wire = Wire::of_cards();
    first_queue_only(&wire);
    let mut guest = boot(&wire, ",require=zerocopy");
    let traffic = with_traffic(&wire, &mut guest);
    for channels in [1, 2] {
        // The driver stops all queues, allocates them anew, and starts them.
        wire.near(&format!("ethtool -L {} combined {channels}", Wire::IFNAME));
        wire.wait_for_carrier();
        if channels > 1 {
            first_queue_only(&wire);
        }
        guest.wait_for_link(true);
        guest.ok(&format!("ping -q -c 3 -i 0.5 -W 10 {}", Wire::PEER));
    }
    drop(traffic);
    streams(&wire, &mut guest, 500_000);
    end(&wire, guest);
}

/// 38: its rings are the card's no more, and the VM lives. In its slot again, it is free for the next one.
fn pulled_under_traffic(kind: Card) {
    let wire = Wire::of(kind);
    if kind == Card::Igb {
        first_queue_only(&wire);
    }
    let mut guest = boot(&wire, ",require=zerocopy");
    let traffic = with_traffic(&wire, &mut guest);
    // Some are under way by then.
    guest.ok(&format!("ping -q -c 3 -i 0.5 -W 10 {}", Wire::PEER));
    wire.pull();
    guest.wait_for_link(false);
    guest.assert_idle("card pulled");
    drop(traffic);
    wire.put_back();
    let log = end(&wire, guest);
    assert_frames_add_up(&log);

    if kind == Card::Igb {
        first_queue_only(&wire);
    }
    let mut guest = boot(&wire, ",require=zerocopy");
    streams(&wire, &mut guest, 500_000);
    end(&wire, guest);
}

/// 38.
#[test]
fn a_card_that_is_pulled_under_traffic_is_a_link_that_is_down() {
    pulled_under_traffic(Card::Igb);
}

/// 38.
#[test]
fn a_pulled_virtio_net_is_a_link_that_is_down() {
    pulled_under_traffic(Card::VirtioNet);
}
