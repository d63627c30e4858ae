//! What a virtio device's PCI function says of itself: identity, and where its register blocks are.
#![expect(clippy::unwrap_used, reason = "a panic is the failure report")]

use std::fs::File;

use devices::{
    pci::{ConfigSpace, Identity},
    testing::{Face, TestDriver},
    virtio::{
        ActivateError, Activation, VirtioDevice, blk::BlkDevice, pci::PciTransport, rng::RngDevice,
    },
};

/// Register blocks begin at multiples of this, and their lengths are such.
const PAGE: u64 = 0x1000;

/// A device of that ID with so many queues, which does nothing.
struct Idle {
    id: u32,
    queues: Vec<u16>,
}

impl Idle {
    fn new(id: u32, queues: usize) -> Self {
        let queues = vec![16; queues];
        Self { id, queues }
    }
}

impl VirtioDevice for Idle {
    fn device_id(&self) -> u32 {
        self.id
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queues
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, _activation: Activation) -> Result<(), ActivateError> {
        Ok(())
    }

    fn reset(&mut self) {}

    fn pause(&mut self) {}

    fn resume(&mut self) -> Result<(), ActivateError> {
        Ok(())
    }
}

/// Asserts what the header says: IDs (4.1.2), revision, class, subsystem.
fn assert_identity(device: impl VirtioDevice + 'static, id: u16, class: [u8; 3]) {
    let mut driver = TestDriver::on(Face::Pci, device);
    let pci = driver.pci();
    let own = u16::from_le_bytes(pci.config(0x02));
    assert_eq!(pci.config::<2>(0x00), [0xf4, 0x1a], "vendor");
    assert_eq!(own, id, "device");
    assert_eq!(pci.config::<1>(0x08), [1], "revision");
    assert_eq!(pci.config::<3>(0x09), class, "class of {id:#x}");
    assert_eq!(pci.config::<2>(0x2c), [0xf4, 0x1a], "subsystem vendor");
    assert_eq!(u16::from_le_bytes(pci.config(0x2e)), id, "subsystem");
}

#[test]
fn each_device_says_what_it_is() {
    let image = std::env::temp_dir().join(format!("ringwire-pci-{}", std::process::id()));
    File::create(&image).unwrap().set_len(512).unwrap();
    let disk = BlkDevice::open(&image, true).unwrap();
    std::fs::remove_file(&image).unwrap();
    // Programming interface, subclass, class.
    assert_identity(Idle::new(1, 2), 0x1041, [0, 0, 0x02]);
    assert_identity(disk, 0x1042, [0, 0, 0x01]);
    assert_identity(RngDevice::new(), 0x1044, [0, 0, 0xff]);
    assert_identity(Idle::new(0x3f, 1), 0x107f, [0, 0, 0xff]);
}

/// A capability of the kind `cfg_type`: `cap_len`, BAR, offset, length.
fn block(driver: &mut TestDriver, cfg_type: u8) -> (u8, u8, u64, u64) {
    let pci = driver.pci();
    let all = pci.capabilities();
    let mut found = all
        .iter()
        .filter(|&&(at, id)| id == 9 && pci.config(at + 3) == [cfg_type])
        .map(|&(at, _)| {
            let [len] = pci.config(at + 2);
            let [bar] = pci.config(at + 4);
            let word = |offset| u64::from(u32::from_le_bytes(pci.config(at + offset)));
            (len, bar, word(8), word(12))
        });
    found.next().unwrap()
}

/// 4.1.4: the notification block has an address for each queue, all blocks are apart from each other and in the BAR.
#[test]
fn register_blocks_have_room_for_what_is_in_them() {
    for (queues, notify_len) in [(1, PAGE), (3, PAGE), (1024, PAGE), (1025, 2 * PAGE)] {
        let size = PciTransport::register_bar_size(queues);
        // Three pages before it.
        assert_eq!(size, (3 * PAGE + notify_len).next_power_of_two());
        let last = PciTransport::notify_offset(u16::try_from(queues - 1).unwrap());
        assert!(last + 4 <= 3 * PAGE + notify_len, "{queues} queues");
        let mut driver = TestDriver::on(Face::Pci, Idle::new(4, queues));
        let mut block = |kind| block(&mut driver, kind);
        assert_eq!(block(1), (16, 0, 0, 64), "common configuration");
        assert_eq!(block(2), (20, 0, 3 * PAGE, notify_len), "notification");
        assert_eq!(block(3), (16, 0, PAGE, 1), "ISR status");
        assert_eq!(block(4), (16, 0, 2 * PAGE, PAGE), "device configuration");
        assert_eq!(block(5), (20, 0, 0, 0), "the window");
    }
}

/// PCI 3.0, 6.2.5.1: a 64-bit BAR has two registers of the six, and each register one BAR.
#[test]
fn bars_that_do_not_fit_are_a_mistake_of_the_author() {
    const IDENTITY: Identity = Identity {
        vendor: 0x1af4,
        device: 0x1041,
        revision: 1,
        class: 0x02_0000,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1041,
    };
    let fits = |bars: &[(u8, u64, u64)]| {
        std::panic::catch_unwind(|| {
            let mut config = ConfigSpace::new(&IDENTITY);
            for &(index, size, address) in bars {
                config.add_bar(index, size, address);
            }
        })
        .is_ok()
    };
    let at = |index| (index, 0x1000, 0x10_0000);
    assert!(fits(&[at(0), at(2), at(4)]));
    assert!(fits(&[at(3), at(1)]));
    for taken in [0, 1, 2, 3] {
        assert!(!fits(&[at(taken), at(taken)]), "{taken}");
        assert!(!fits(&[at(taken), at(taken + 1)]), "{taken}");
        assert!(!fits(&[at(taken + 1), at(taken)]), "{taken}");
    }
    for index in [5, 6, 200] {
        assert!(!fits(&[at(index)]), "no register behind {index}");
    }
    for size in [16, 1 << 31] {
        assert!(fits(&[(0, size, size)]), "{size:#x}");
    }
    for (size, address) in [(8, 8), (1 << 32, 0), (0, 0), (0x1800, 0), (0x1000, 0x800)] {
        assert!(!fits(&[(0, size, address)]), "{size:#x} at {address:#x}");
    }
}
