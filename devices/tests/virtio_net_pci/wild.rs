//! Random accesses to configuration space and BARs: whatever a guest does there, the host's side
//! stays sound, and a driver that sets everything up again finds a working card.

use devices::{
    pci::PciFunction,
    testing::{register, status},
};

use crate::{guest::*, random::Numbers};

/// One access somewhere, mostly where something is.
fn access(numbers: &mut Numbers, guest: &mut NetGuest) {
    let wild = numbers.next();
    let value = numbers.pick(&[
        0,
        1,
        3,
        7,
        11,
        15,
        0x8000_8000,
        u64::MAX,
        wild,
        0x1000,
        0x10,
    ]);
    let len = numbers.pick(&[1, 2, 4, 4, 4, 8, 3]);
    let bytes = value.to_le_bytes();
    let data = &bytes[..len];
    let mut read = vec![0; len];
    let near = numbers.next() % 0x40;
    let page = numbers.pick(&[0u64, 0, 0, 0x1000, 0x2000, 0x3000]);
    let offset = numbers.pick(&[
        page + near,
        page + near,
        wild % 0x5000,
        wild,
        u64::MAX - near,
    ]);
    let register = u16::try_from(numbers.next() % 0xb8).unwrap();
    let (bar, far) = (numbers.pick(&[0, 0, 2, 1]), offset & 0xffff);
    let kind = numbers.next() % 6;
    let pci = guest.driver.pci();
    match kind {
        0 => pci.set_config(register, data),
        1 => {
            let _ = pci.config::<4>(register);
        }
        2 => {
            pci.write(pci.bar(bar.into()).wrapping_add(far), data);
        }
        kind => {
            let mut function = pci.function().lock().unwrap();
            match kind {
                3 => function.read_bar(bar, offset, &mut read),
                4 => function.write_bar(bar, offset, data),
                // Aligned to what was meant: these reach registers.
                _ => function.write_bar(bar, offset & !3, &bytes[..4]),
            }
        }
    }
}

#[test]
fn random_accesses_never_hurt_the_host() {
    let mut numbers = Numbers(0x9c1);
    let mut guest = NetGuest::plug("twild");
    let mut stopped = 0;
    for round in 0..100 {
        // From a device at work, and from one that waits for its driver.
        guest.boot();
        let works = round % 2 == 0;
        if !works {
            guest.driver.write(register::STATUS, 0);
        }
        for _ in 0..1000 {
            access(&mut numbers, &mut guest);
        }
        guest.driver.pci().bring_up();
        stopped += u32::from(works && guest.driver.status() & status::DRIVER_OK == 0);
        guest.boot();
        while take(&mut guest.wire).is_some() {}
        guest.check_traffic();
    }
    assert!(stopped > 0, "some of it had an effect");
    guest.assert_sound();
}
