//! Ring addresses have 64 bits: those of a guest with more than 3 GiB are above 4 GiB.

use devices::testing::status;

use crate::guest::*;

/// 9: each ring at an address whose lower half would be right.
#[test]
fn both_halves_of_each_ring_address_count() {
    for part in 0..3 {
        for high in [1, 1 << 31] {
            let mut guest = NetGuest::plug("thigh");
            guest.set_up();
            let low = guest.tx.addresses()[part];
            guest.tx.relocate(part, high << 32 | low);
            guest.driver.enable(&guest.rx);
            guest.driver.enable(&guest.tx);
            guest.driver.start();
            let failed = guest.driver.status() & status::NEEDS_RESET != 0;
            assert!(failed, "part {part} at {:#x}", high << 32 | low);
            guest.boot();
            guest.check_traffic();
        }
    }
}
