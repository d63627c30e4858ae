//! What happens to a card while a guest uses it.

use ringwire_tests::{Guest, Wire};

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
