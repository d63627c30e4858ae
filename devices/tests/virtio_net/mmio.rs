//! The MMIO window itself.

use devices::{bus::BusDevice, testing::register};

use crate::guest::*;

/// 29: every width at every offset of the window, in every state.
#[test]
fn odd_register_accesses_are_harmless() {
    let mut guest = NetGuest::plug("t29");
    guest.set_up();
    for width in [1, 2, 3, 4, 5, 8] {
        for offset in (0..0x200).chain(0xff0..0x1000) {
            let mut data = vec![0xff; width];
            guest.driver.mmio().read(offset, &mut data);
            let config = offset >= register::CONFIG;
            let past_end = offset >= register::CONFIG + 17;
            if past_end || !config && (width != 4 || offset % 4 != 0) {
                assert!(
                    data.iter().all(|&byte| byte == 0),
                    "{width} at {offset:#x}: {data:x?}"
                );
            }
            // Only those that can't be a register.
            if config || width != 4 {
                guest.driver.mmio().write(offset, &data);
            }
        }
    }
    let mut all = [0; 17];
    guest.driver.mmio().read(register::CONFIG, &mut all);
    assert_eq!(all[..6], MAC);
    for (offset, &byte) in (0..).zip(&all) {
        assert_eq!(guest.driver.config::<1>(offset), [byte]);
    }
    assert_eq!(guest.driver.config::<8>(12)[..5], all[12..]);
    assert_eq!(
        guest.driver.config::<8>(u64::MAX - register::CONFIG),
        [0; 8]
    );
    guest.boot();
    guest.check_traffic();
}
