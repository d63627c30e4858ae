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

/// 4.2.2: what a driver looks at before anything else.
#[test]
fn the_window_says_what_it_is() {
    let mut guest = NetGuest::plug("tident");
    let mut word = |offset| {
        let mut data = [0; 4];
        guest.driver.mmio().read(offset, &mut data);
        data
    };
    assert_eq!(&word(0x00), b"virt", "MagicValue");
    assert_eq!(word(0x04), [2, 0, 0, 0], "Version: not the legacy one");
    assert_eq!(word(0x08), [1, 0, 0, 0], "DeviceID: a network card");
    assert_eq!(&word(0x0c), b"RGWR", "VendorID");
    for shared_memory in (0xb0..=0xbc).step_by(4) {
        assert_eq!(word(shared_memory), [0xff; 4], "none");
    }
}
