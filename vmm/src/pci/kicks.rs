//! Kicks that KVM takes itself: an ioeventfd at each queue's notification address, wherever the driver
//! puts the BAR.

use std::sync::{Arc, OnceLock};

use devices::{
    pci::{BarRange, BarRefused, BarSpace},
    virtio::pci::{PciTransport, REGISTER_BAR},
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

/// A function's eventfds, one a queue: made with the function, which needs its [`BarSpace`] first.
#[derive(Debug, Default)]
pub(super) struct Kicks(OnceLock<Box<[Arc<EventFd>]>>);

impl Kicks {
    pub(super) fn set(&self, kicks: &[Arc<EventFd>]) {
        // Set once, right after the function was made.
        let _ = self.0.set(kicks.into());
    }

    fn all(&self) -> &[Arc<EventFd>] {
        self.0.get().map_or(&[], |kicks| kicks)
    }
}

/// A function's address space: the bus's, and ioeventfds that follow the register BAR.
pub(super) struct KicksFollow {
    space: Box<dyn BarSpace>,
    vm: Arc<VmFd>,
    kicks: Arc<Kicks>,
    /// How many of the kicks KVM takes, counted from the first.
    attached: usize,
    /// How often it refused. A guest can make that happen for ever.
    refusals: u64,
}

impl KicksFollow {
    pub(super) fn new(space: Box<dyn BarSpace>, vm: Arc<VmFd>, kicks: Arc<Kicks>) -> Self {
        Self {
            space,
            vm,
            kicks,
            attached: 0,
            refusals: 0,
        }
    }

    fn detach(&mut self, bar: u64) {
        let attached = std::mem::take(&mut self.attached);
        for (queue, kick) in (0..).zip(self.kicks.all()).take(attached) {
            let address = address(bar, queue);
            if let Err(e) = self.vm.unregister_ioevent(kick, &address, NoDatamatch) {
                self.refusals += 1;
                if self.refusals.is_power_of_two() {
                    tracing::error!("queue {queue}'s kicks stay where its BAR was: {e}");
                }
            }
        }
    }

    /// A kick that KVM does not take comes out of the guest as a write to the BAR, and does the
    /// same: slow, not wrong. So a move is never refused for want of an ioeventfd (KVM has room for
    /// a thousand).
    fn attach(&mut self, bar: u64) {
        for (queue, kick) in (0..).zip(self.kicks.all()) {
            let address = address(bar, queue);
            // At any width and value: the address alone says which queue it is.
            if let Err(e) = self.vm.register_ioevent(kick, &address, NoDatamatch) {
                self.refusals += 1;
                if self.refusals.is_power_of_two() {
                    tracing::warn!("kicks are slow from queue {queue} on: no ioeventfd: {e}");
                }
                break;
            }
            self.attached += 1;
        }
    }
}

fn address(bar: u64, queue: u16) -> IoEventAddress {
    IoEventAddress::Mmio(bar + PciTransport::notify_offset(queue))
}

impl BarSpace for KicksFollow {
    fn relocate(
        &mut self,
        bar: BarRange,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<(), BarRefused> {
        self.space.relocate(bar, from, to)?;
        if bar.index == REGISTER_BAR {
            if let Some(from) = from {
                self.detach(from);
            }
            if let Some(to) = to {
                self.attach(to);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use devices::pci::PciBus;
    use kvm_ioctls::Kvm;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;
    use crate::x86_64::layout::PCI_APERTURE;

    const QUEUES: u16 = 3;
    const SIZE: u64 = 0x4000;

    fn event() -> Arc<EventFd> {
        Arc::new(EventFd::new(EFD_NONBLOCK).unwrap())
    }

    /// KVM has one ioeventfd at an address and refuses a second one: how many queues' are there?
    fn taken(vm: &VmFd, bar: u64) -> u16 {
        let is_taken = |queue: &u16| {
            let (other, address) = (event(), address(bar, *queue));
            let free = vm.register_ioevent(&other, &address, NoDatamatch).is_ok();
            if free {
                vm.unregister_ioevent(&other, &address, NoDatamatch)
                    .unwrap();
            }
            !free
        };
        u16::try_from((0..QUEUES).filter(is_taken).count()).unwrap()
    }

    #[test]
    fn ioeventfds_are_where_the_register_bar_is() {
        let Ok(kvm) = Kvm::new() else {
            println!("SKIPPED: there is no usable /dev/kvm");
            return;
        };
        let vm = Arc::new(kvm.create_vm().unwrap());
        let bus = PciBus::new(PCI_APERTURE).unwrap();
        let kicks = Arc::new(Kicks::default());
        kicks.set(&[event(), event(), event()]);
        let mut space = KicksFollow::new(bus.bar_space(1), Arc::clone(&vm), kicks);
        let bar = |index| BarRange { index, size: SIZE };
        let (first, second) = (PCI_APERTURE.start, PCI_APERTURE.start + 0x10_0000);
        let at = |place| taken(&vm, place);

        space
            .relocate(bar(REGISTER_BAR), None, Some(first))
            .unwrap();
        assert_eq!((at(first), at(second)), (QUEUES, 0));
        // The other BAR has no kicks.
        let other = second + SIZE;
        space.relocate(bar(2), None, Some(other)).unwrap();
        assert_eq!(at(other), 0);
        let (from, to) = (Some(first), Some(second));
        space.relocate(bar(REGISTER_BAR), from, to).unwrap();
        assert_eq!((at(first), at(second)), (0, QUEUES));
        // Refused: onto RAM, onto the other BAR.
        for wrong in [0x10_0000, other] {
            let refused = space.relocate(bar(REGISTER_BAR), to, Some(wrong));
            refused.unwrap_err();
            assert_eq!((at(wrong), at(second)), (0, QUEUES));
        }
        space.relocate(bar(REGISTER_BAR), to, None).unwrap();
        assert_eq!(at(second), 0);
        // Kicks for which there is no room are missing, and nothing else: KVM has had one here.
        let thief = event();
        vm.register_ioevent(&thief, &address(first, 1), NoDatamatch)
            .unwrap();
        space.relocate(bar(REGISTER_BAR), None, from).unwrap();
        space.relocate(bar(REGISTER_BAR), from, None).unwrap();
        assert_eq!(at(first), 1, "the thief's alone");
    }
}
