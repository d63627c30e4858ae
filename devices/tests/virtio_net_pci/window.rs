//! VIRTIO_PCI_CAP_PCI_CFG (4.1.4.9) does what it is aimed at when its four bytes are touched, and only then.

use devices::testing::wait_for;

use crate::guest::*;

/// Offset of `pci_cfg_data` of the window whose capability is at `at`.
fn data_at(at: u16) -> u16 {
    at + 16
}

#[test]
fn only_the_data_of_the_window_reads_what_it_is_aimed_at() {
    let mut guest = NetGuest::plug("twinisr");
    guest.driver.pci().enable_msix(false, false);
    guest.boot();
    let pci = guest.driver.pci();
    let mut windows = pci.capabilities().into_iter();
    let window = windows.rfind(|&(at, id)| id == 9 && pci.config(at + 3) == [5]);
    let (at, _) = window.unwrap();
    // At the ISR status, which is cleared by each read: a page behind the common configuration.
    pci.set_config(at + 4, &[0]);
    pci.set_config(at + 8, &0x1000u32.to_le_bytes());
    pci.set_config(at + 12, &1u32.to_le_bytes());
    guest.transmit(&pattern(60, 1));
    guest.sent();
    let pci = guest.driver.pci();
    let data = data_at(at);
    let before = [(data - 4, 4), (data - 1, 1), (data - 8, 8)];
    let behind = [(data + 4, 1), (data + 4, 4), (data + 5, 8), (0xf8, 8)];
    let function = pci.function();
    for (offset, len) in before.into_iter().chain(behind) {
        let mut bytes = [0; 8];
        let mut function = function.lock().unwrap();
        devices::pci::PciFunction::read_config(&mut *function, offset, &mut bytes[..len]);
        devices::pci::PciFunction::read_config(&mut *function, offset, &mut bytes[..len]);
    }
    // The interrupt comes after the used buffer.
    wait_for("the ISR status", || (pci.config(data) == [1]).then_some(()));
    assert_eq!(pci.config(data), [0], "reading acknowledged it");
    guest.check_traffic();
}
