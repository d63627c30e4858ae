//! A transport's right to touch guest memory, taken away and given back: on PCI by Bus Master Enable
//! (PCI 3.0, 6.2.2).

use super::VirtioCore;

/// What the driver did while the device might not touch its memory, and what is done when it may.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// It set DRIVER_OK.
    start: bool,
    /// It enabled these queues after DRIVER_OK. Each is there once, so there are no more than queues.
    queues: Vec<u32>,
}

impl Late {
    /// Forgets a queue; whether it was here.
    pub(super) fn forget(&mut self, index: u32) -> bool {
        let before = self.queues.len();
        self.queues.retain(|&queue| queue != index);
        self.queues.len() < before
    }
}

impl VirtioCore {
    /// Takes the device's right to touch guest memory away. When it returns, the device rests as if it were stopped;
    /// what the driver says to its registers counts, and [`resume`](Self::resume) goes on from there.
    pub fn pause(&mut self) {
        if std::mem::replace(&mut self.may_run, false) && self.active {
            self.device.pause();
        }
    }

    /// Gives the right back. A new device has it.
    pub fn resume(&mut self) {
        if std::mem::replace(&mut self.may_run, true) {
            return;
        }
        let Late { start, queues } = std::mem::take(&mut self.late);
        if start {
            // With all queues that are enabled by now.
            return self.activate();
        }
        if !self.active {
            return;
        }
        if let Err(reason) = self.device.resume() {
            return self.refuse("can't go on where it was stopped", &reason);
        }
        for index in queues {
            self.enable_queue(index);
        }
    }

    /// DRIVER_OK.
    pub(super) fn start(&mut self) {
        if self.may_run {
            self.activate();
        } else {
            self.late.start = true;
        }
    }

    /// The driver enabled queue `index` after DRIVER_OK.
    pub(super) fn enable(&mut self, index: u32) {
        if self.may_run {
            self.enable_queue(index);
        } else if self.active {
            self.late.queues.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use crate::{
        testing::{Face, TestDriver, status},
        virtio::{
            ActivateError, Activation, VirtioDevice,
            queue::{RING_RESET, VERSION_1},
        },
    };

    /// Takes note of what it is told.
    #[derive(Default)]
    struct Device {
        said: Arc<Mutex<Vec<String>>>,
        refuses: bool,
    }

    impl Device {
        fn hear(&self, what: &str, activation: &Activation) {
            let queues = activation.queues.iter().flatten();
            let queues: Vec<_> = queues.map(|queue| queue.index).collect();
            self.said.lock().unwrap().push(format!("{what} {queues:?}"));
        }
    }

    impl VirtioDevice for Device {
        fn device_id(&self) -> u32 {
            42
        }
        fn features(&self) -> u64 {
            0
        }
        fn queue_max_sizes(&self) -> &[u16] {
            &[16, 16]
        }
        fn read_config(&self, _: u64, _: &mut [u8]) {}
        fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
            self.hear("activate", &activation);
            Ok(())
        }
        fn enable_queue(&mut self, activation: Activation) -> Result<(), ActivateError> {
            self.hear("enable", &activation);
            Ok(())
        }
        fn reset_queue(&mut self, index: u16) -> Result<(), ActivateError> {
            self.said.lock().unwrap().push(format!("reset [{index}]"));
            Ok(())
        }
        fn reset(&mut self) {
            self.said.lock().unwrap().push("reset".to_owned());
        }
        fn pause(&mut self) {
            self.said.lock().unwrap().push("pause".to_owned());
        }
        fn resume(&mut self) -> Result<(), ActivateError> {
            self.said.lock().unwrap().push("resume".to_owned());
            if self.refuses {
                return Err(ActivateError::Dead);
            }
            Ok(())
        }
    }

    struct Rig {
        driver: TestDriver,
        said: Arc<Mutex<Vec<String>>>,
    }

    impl Rig {
        fn new(refuses: bool) -> Self {
            let said = Arc::default();
            let device = Device {
                said: Arc::clone(&said),
                refuses,
            };
            let driver = TestDriver::on(Face::Pci, device);
            let mut rig = Self { driver, said };
            assert!(rig.driver.negotiate(VERSION_1 | RING_RESET));
            rig
        }

        fn may(&mut self, on: bool) {
            self.driver.pci().set_bus_master(on);
        }

        fn said(&self) -> Vec<String> {
            std::mem::take(&mut *self.said.lock().unwrap())
        }
    }

    #[test]
    fn a_device_is_paused_and_resumed_once() {
        let mut rig = Rig::new(false);
        rig.may(false);
        rig.may(true);
        assert!(rig.said().is_empty(), "it has no queues");
        rig.driver.queue(0, 16);
        rig.driver.start();
        for on in [true, false, false, true, true] {
            rig.may(on);
        }
        assert_eq!(rig.said(), ["activate [0]", "pause", "resume"]);
        rig.may(false);
        rig.driver.write(crate::testing::register::STATUS, 0);
        rig.may(true);
        assert_eq!(rig.said(), ["pause", "reset"]);
    }

    #[test]
    fn what_the_driver_does_meanwhile_comes_afterwards_and_once() {
        let mut rig = Rig::new(false);
        rig.may(false);
        rig.driver.queue(0, 16);
        rig.driver.start();
        rig.driver.queue(1, 16);
        rig.driver.reset_queue(0);
        assert!(rig.said().is_empty());
        rig.may(true);
        assert_eq!(rig.said(), ["activate [1]"]);
        rig.may(false);
        rig.driver.queue(0, 16);
        rig.driver.reset_queue(0);
        rig.driver.queue(0, 16);
        rig.driver.reset_queue(1);
        rig.driver.reset_queue(1);
        assert_eq!(rig.said(), ["pause", "reset [1]"]);
        rig.may(true);
        assert_eq!(rig.said(), ["resume", "enable [0]"]);
        rig.may(false);
        rig.driver.queue(1, 16);
        rig.driver.reset_queue(1);
        rig.may(true);
        assert_eq!(rig.said(), ["pause", "resume"]);
    }

    #[test]
    fn a_device_that_can_t_go_on_needs_a_reset() {
        let mut rig = Rig::new(true);
        rig.driver.start();
        rig.may(false);
        assert_eq!(rig.driver.status() & status::NEEDS_RESET, 0);
        rig.may(true);
        assert_ne!(rig.driver.status() & status::NEEDS_RESET, 0);
    }
}
