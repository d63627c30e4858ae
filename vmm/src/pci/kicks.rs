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
}

impl KicksFollow {
    pub(super) fn new(space: Box<dyn BarSpace>, vm: Arc<VmFd>, kicks: Arc<Kicks>) -> Self {
        Self {
            space,
            vm,
            kicks,
            attached: 0,
        }
    }

    fn detach(&mut self, bar: u64) {
        let attached = std::mem::take(&mut self.attached);
        for (queue, kick) in (0..).zip(self.kicks.all()).take(attached) {
            let address = address(bar, queue);
            if let Err(e) = self.vm.unregister_ioevent(kick, &address, NoDatamatch) {
                tracing::error!("queue {queue}'s kicks stay where its BAR was: {e}");
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
                tracing::warn!("kicks are slow from queue {queue} on: no ioeventfd: {e}");
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
