//! The registers' blocks, reached by BAR and by the window in configuration space.

use devices::{
    pci::PciFunction,
    testing::{PciGuest, register, wait_for},
};

use crate::guest::*;

/// An access to a BAR through VIRTIO_PCI_CAP_PCI_CFG, whose offset is `window`.
fn aim(pci: &mut PciGuest, window: u16, bar: u8, offset: u32, len: u32) {
    pci.set_config(window + 4, &[bar]);
    pci.set_config(window + 8, &offset.to_le_bytes());
    pci.set_config(window + 12, &len.to_le_bytes());
}

fn window(pci: &PciGuest) -> u16 {
    let windows = pci.capabilities().into_iter();
    let mut found = windows
        .filter(|&(at, id)| id == 9 && pci.config::<4>(at)[3] == 5)
        .map(|(at, _)| at);
    found.next_back().unwrap()
}

#[test]
fn a_driver_finds_what_it_looks_for() {
    let mut guest = NetGuest::plug("tfind");
    let pci = guest.driver.pci();
    assert_eq!(pci.config::<4>(0), [0xf4, 0x1a, 0x41, 0x10], "1af4:1041");
    assert_eq!(pci.config::<4>(8), [1, 0, 0, 2], "revision 1, Ethernet");
    assert_eq!(pci.config::<1>(0x0e), [0], "one function, type 0");
    assert_eq!(pci.config::<1>(0x3d), [0], "no INTx");
    assert_eq!(pci.config::<4>(0x100), [0; 4], "no extended capabilities");
    let ids: Vec<_> = pci.capabilities().iter().map(|&(_, id)| id).collect();
    assert_eq!(ids, [0x11, 9, 9, 9, 9, 9]);
    assert!(pci.common > 0 && pci.isr > 0 && pci.device > 0 && pci.notify > 0);
    // Each queue has its own address.
    assert_eq!(pci.notify_stride, 4);
    for queue in 0..4u16 {
        pci.write(pci.common + 22, &queue.to_le_bytes());
        let mut data = [0; 2];
        pci.read(pci.common + 30, &mut data);
        let expected = if queue < 3 { queue } else { 0 };
        assert_eq!(u16::from_le_bytes(data), expected);
    }
    let mut count = [0; 2];
    pci.read(pci.common + 18, &mut count);
    assert_eq!(count, [3, 0], "receive, transmit, control");
}

/// 29: every width at every offset of every BAR and of configuration space, in every state.
#[test]
fn odd_accesses_are_harmless() {
    let mut guest = NetGuest::plug("t29p");
    guest.set_up();
    let natural = |offset: u64, len: usize| match offset {
        0 | 4 | 8 | 12 | 32.. => len == 4 || len == 8 && offset >= 32,
        20 | 21 => len == 1,
        _ => len == 2,
    };
    for len in [1, 2, 3, 4, 5, 8] {
        let pci = guest.driver.pci();
        for offset in (0..0x80).chain(0xff0..0x1000) {
            let mut data = vec![0xff; len];
            assert!(pci.read(pci.common + offset, &mut data));
            if !natural(offset, len) || offset >= 56 {
                assert!(data.iter().all(|&b| b == 0), "{len} at {offset}: {data:x?}");
                pci.write(pci.common + offset, &vec![0xff; len]);
            }
        }
        for bar in [0, 1, 2, 3, 5, 255] {
            let function = guest.driver.pci().function();
            let mut function = function.lock().unwrap();
            for offset in [0x40, 0x1001, 0x1fff, 0x2fff, 0x4000, u64::MAX - 7] {
                let mut data = vec![0xff; len];
                function.read_bar(bar, offset, &mut data);
                assert!(data.iter().all(|&byte| byte == 0), "{bar} {offset:#x}");
                function.write_bar(bar, offset, &vec![0xff; len]);
            }
        }
    }
    for (offset, &byte) in (0..).zip(&MAC) {
        assert_eq!(guest.driver.config::<1>(offset), [byte]);
    }
    assert_eq!(guest.driver.config::<8>(17), [0; 8], "past the end");
    guest.boot();
    guest.check_traffic();
}

/// 29: configuration space takes any write at any place; read-only bits stay.
#[test]
fn configuration_space_keeps_what_is_read_only() {
    let mut guest = NetGuest::start("tcfg");
    let before: [u8; 4] = guest.driver.pci().config(0);
    for value in [0xff, 0x00, 0x5a] {
        for len in [1, 2, 3, 4, 8] {
            let pci = guest.driver.pci();
            // Not the command register, nor BARs and Message Control: those have their own tests.
            let msix = pci.msix_capability();
            for offset in (6..0x10).chain(0x28..msix).chain(msix + 4..0x1000) {
                let mut data = vec![0; len];
                let function = pci.function();
                function.lock().unwrap().read_config(offset, &mut data);
                if usize::from(offset) + len <= usize::from(msix) || offset >= msix + 4 {
                    pci.set_config(offset, &vec![value; len]);
                }
            }
            assert_eq!(pci.config::<4>(0), before);
            assert_eq!(pci.config::<4>(8), [1, 0, 0, 2]);
            assert_eq!(pci.config::<1>(0x3d), [0]);
            pci.find_registers();
        }
    }
    guest.check_traffic();
}

/// 4.1.4.9: BARs can be reached without memory decoding.
#[test]
fn the_window_reaches_both_bars() {
    let mut guest = NetGuest::plug("twin");
    let pci = guest.driver.pci();
    let window = window(pci);
    pci.set_config(4, &[0, 0]);
    assert!(!pci.read(pci.common, &mut [0; 4]), "nothing is decoded");
    aim(pci, window, 0, 0x2000, 4);
    assert_eq!(pci.config::<4>(window + 16)[..], MAC[..4]);
    aim(pci, window, 0, 0x2004, 2);
    assert_eq!(pci.config::<4>(window + 16), [MAC[4], MAC[5], 0, 0]);
    aim(pci, window, 0, 20, 1);
    for status in [1, 3] {
        pci.set_config(window + 16, &[status, 0, 0, 0]);
        assert_eq!(pci.config::<1>(window + 16), [status]);
    }
    aim(pci, window, 2, 8, 4);
    assert_eq!(pci.config::<4>(window + 16), 0x4000u32.to_le_bytes());
    // Against the rules: nothing happens.
    for (bar, offset, len) in [
        (0, 20, 0),
        (0, 20, 3),
        (0, 20, 8),
        (0, 21, 2),
        (0, u32::MAX, 1),
        (1, 20, 1),
        (7, 0, 4),
        (0xff, 0, 4),
    ] {
        aim(pci, window, bar, offset, len);
        pci.set_config(window + 16, &[0; 4]);
        let _ = pci.config::<4>(window + 16);
    }
    pci.set_config(4, &[6, 0]);
    assert_eq!(guest.driver.status(), 3, "the status is as it was");
    guest.boot();
    guest.check_traffic();
}

/// 4.1.4.5: without MSI-X a driver polls the ISR status, and reading acknowledges.
#[test]
fn without_msix_the_isr_status_tells() {
    let mut guest = NetGuest::plug("tisr");
    guest.driver.pci().enable_msix(false, false);
    guest.boot();
    guest.transmit(&pattern(60, 1));
    guest.sent();
    let isr = |guest: &mut NetGuest| {
        let pci = guest.driver.pci();
        let mut data = [0];
        assert!(pci.read(pci.isr, &mut data));
        (data != [0]).then_some(data[0])
    };
    assert_eq!(wait_for("a bit", || isr(&mut guest)), 1);
    assert_eq!(isr(&mut guest), None, "reading clears");
    guest.control.set_link(false);
    assert_eq!(wait_for("a bit", || isr(&mut guest)), 2);
    assert!(!guest.driver.interrupted(), "and no message was sent");
    guest.driver.write(register::STATUS, 0);
    guest.driver.pci().enable_msix(true, false);
    guest.boot();
    guest.check_traffic();
}

/// 30: queues that don't exist have no vector, no address and no notification.
#[test]
fn queues_that_do_not_exist_have_nothing() {
    let mut guest = NetGuest::plug("t30p");
    guest.set_up();
    let pci = guest.driver.pci();
    for queue in [3u16, 77, 0xffff] {
        pci.write(pci.common + 22, &queue.to_le_bytes());
        pci.write(pci.common + 26, &[1, 0]);
        let mut data = [0; 2];
        pci.read(pci.common + 26, &mut data);
        assert_eq!(data, [0xff, 0xff], "no vector");
        for address in (pci.common + 32..pci.common + 56).step_by(8) {
            pci.write(address, &[0xab; 8]);
            let mut data = [0xff; 8];
            pci.read(address, &mut data);
            assert_eq!(data, [0; 8]);
        }
        pci.write(pci.notify + 4 * u64::from(queue), &queue.to_le_bytes());
    }
    guest.boot();
    guest.check_traffic();
}

/// 15, 29: addresses are set in halves or whole, and read back.
#[test]
fn queue_addresses_read_back() {
    let mut guest = NetGuest::plug("taddr");
    guest.set_up();
    let pci = guest.driver.pci();
    pci.write(pci.common + 22, &[1, 0]);
    pci.write(pci.common + 40, &0x1122_3344_5566_7788u64.to_le_bytes());
    pci.write(pci.common + 44, &0xaabb_ccddu32.to_le_bytes());
    let mut whole = [0; 8];
    pci.read(pci.common + 40, &mut whole);
    assert_eq!(u64::from_le_bytes(whole), 0xaabb_ccdd_5566_7788);
    let mut half = [0; 4];
    pci.read(pci.common + 44, &mut half);
    assert_eq!(u32::from_le_bytes(half), 0xaabb_ccdd);
    let mut straddling = [0xff; 8];
    pci.read(pci.common + 36, &mut straddling);
    assert_eq!(straddling, [0; 8], "two fields at once are none");
    guest.boot();
    guest.check_traffic();
}
