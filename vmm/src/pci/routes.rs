//! Messages as interrupts: KVM's GSI routing table (Documentation/virt/kvm/api.rst,
//! KVM_SET_GSI_ROUTING), of which KVM takes the whole whenever one entry changes.

use std::sync::{Arc, Mutex, PoisonError};

use devices::pci::{MsiMessage, MsiSink};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_IRQ_ROUTES, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1 as Target, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;

use super::PciHostError;
use crate::x86_64::layout::IO_APIC_PINS;

/// GSIs that the table has room for: each has one entry, and those of the PICs a second one.
#[expect(
    clippy::cast_possible_truncation,
    reason = "4096, and `try_from` is not const"
)]
pub(super) const MAX_GSIS: u32 = KVM_MAX_IRQ_ROUTES as u32 - PIC_LINES;

/// Inputs of the two PICs.
const PIC_LINES: u32 = 16;

/// The table of a VM.
#[derive(Debug)]
pub(super) struct Routes {
    vm: Arc<VmFd>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// One entry for each GSI that is reserved, from [`IO_APIC_PINS`] on.
    messages: Vec<Option<MsiMessage>>,
    failures: u64,
}

/// One function's part of it.
pub(super) struct FunctionRoutes {
    routes: Arc<Routes>,
    /// Index of its first message.
    first: usize,
}

impl Routes {
    /// A table without messages. KVM has the lines in its own already.
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        Self {
            vm,
            table: Mutex::default(),
        }
    }

    /// `count` GSIs for a function, and the first one's number.
    ///
    /// # Errors
    /// There are not so many left.
    pub(super) fn reserve(
        routes: &Arc<Self>,
        count: u16,
    ) -> Result<(FunctionRoutes, u32), PciHostError> {
        let mut table = routes.table.lock().unwrap_or_else(PoisonError::into_inner);
        let first = table.messages.len();
        let end = first + usize::from(count);
        let gsi = |index| u32::try_from(index).unwrap_or(u32::MAX) + IO_APIC_PINS;
        if gsi(end) > MAX_GSIS {
            return Err(PciHostError::TooManyVectors);
        }
        table.messages.resize(end, None);
        let routes = Arc::clone(routes);
        Ok((FunctionRoutes { routes, first }, gsi(first)))
    }

    fn set(&self, index: usize, message: MsiMessage) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = table.messages.get_mut(index) else {
            return;
        };
        if slot.replace(message) == Some(message) {
            return;
        }
        let entries = entries(&table.messages);
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|e| format!("{e:?}"));
        let told = routing.and_then(|routing| {
            let result = self.vm.set_gsi_routing(&routing);
            result.map_err(|e| e.to_string())
        });
        let Err(why) = told else { return };
        // What the driver says next is tried again. It may say much: 1st, 2nd, 4th, ... failure.
        if let Some(slot) = table.messages.get_mut(index) {
            *slot = None;
        }
        table.failures += 1;
        if table.failures.is_power_of_two() {
            let number = table.failures;
            tracing::error!(
                "KVM could not route an interrupt message (time {number}), so a device's interrupts are lost: {why}"
            );
        }
    }
}

impl MsiSink for FunctionRoutes {
    fn set_route(&mut self, vector: u16, message: MsiMessage, masked: bool) {
        // A driver writes an entry's words one by one while it is masked: only the whole counts.
        if !masked {
            self.routes.set(self.first + usize::from(vector), message);
        }
    }
}

/// The whole table: lines as KVM has them by itself, then messages.
fn entries(messages: &[Option<MsiMessage>]) -> Vec<kvm_irq_routing_entry> {
    let pics = (0..PIC_LINES).map(|line| {
        let (irqchip, pin) = match line {
            0..8 => (KVM_IRQCHIP_PIC_MASTER, line),
            _ => (KVM_IRQCHIP_PIC_SLAVE, line - 8),
        };
        self::line(line, irqchip, pin)
    });
    let io_apic = (0..IO_APIC_PINS).map(|line| self::line(line, KVM_IRQCHIP_IOAPIC, line));
    let messages = (IO_APIC_PINS..).zip(messages);
    let messages = messages.filter_map(|(gsi, message)| Some(self::message(gsi, (*message)?)));
    io_apic.chain(pics).chain(messages).collect()
}

fn line(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: Target {
            irqchip: kvm_irq_routing_irqchip { irqchip, pin },
        },
        ..Default::default()
    }
}

fn message(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let [a, b, c, d, e, f, g, h] = message.address.to_le_bytes();
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: Target {
            msi: kvm_irq_routing_msi {
                address_lo: u32::from_le_bytes([a, b, c, d]),
                address_hi: u32::from_le_bytes([e, f, g, h]),
                data: message.data,
                ..Default::default()
            },
        },
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_routes_and_messages_come_after_them() {
        let message = MsiMessage {
            address: 0x1_fee0_1000,
            data: 0x4021,
        };
        let entries = entries(&[None, Some(message)]);
        let of = |gsi: u32| entries.iter().filter(move |entry| entry.gsi == gsi);
        for gsi in 0..24 {
            // The PICs for guests that have no use for the IO-APIC.
            assert_eq!(of(gsi).count(), if gsi < 16 { 2 } else { 1 }, "GSI {gsi}");
            assert!(of(gsi).all(|entry| entry.type_ == KVM_IRQ_ROUTING_IRQCHIP));
        }
        assert_eq!(of(24).count(), 0, "a vector that is not in use");
        assert_eq!(of(25).count(), 1);
        assert!(of(25).all(|entry| entry.type_ == KVM_IRQ_ROUTING_MSI));
        assert_eq!(entries.len(), 41);
    }
}
