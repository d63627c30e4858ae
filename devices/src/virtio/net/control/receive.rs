//! Commands about which frames the driver receives (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3).

use std::sync::Arc;

use virtio_bindings::virtio_net::{VIRTIO_NET_CTRL_VLAN_ADD, VIRTIO_NET_CTRL_VLAN_DEL};

use super::{Outcome, Refused};
use crate::virtio::{
    net::{
        filter::{Addresses, MAX_ADDRESSES, Mode, RxFilter},
        shared::Shared,
        wire::{MacAddress, is_station},
    },
    queue::Reader,
};

/// Longest list of addresses of a kind that can be meant: a driver that wants to hear so many asks for
/// all of them.
const MOST_LISTED: usize = 4096;

/// The driver's filter, and who is shown it.
pub(super) struct ReceiveControl {
    filter: RxFilter,
    shared: Arc<Shared>,
}

impl ReceiveControl {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            filter: RxFilter::clone(&shared.filter.current()),
            shared: Arc::clone(shared),
        }
    }

    fn publish(&self) {
        self.shared.filter.publish(self.filter.clone());
    }

    /// VIRTIO_NET_CTRL_RX: one byte, 1 for on and 0 for off.
    pub(super) fn mode(&mut self, command: u8, data: Reader<'_>) -> Outcome {
        let mode = Mode::of_command(command).ok_or(Refused)?;
        let on = match exactly(data)? {
            [0] => false,
            [1] => true,
            _ => return Err(Refused),
        };
        self.filter.set_mode(mode, on);
        self.publish();
        Ok(())
    }

    /// VIRTIO_NET_CTRL_MAC_TABLE_SET: the addresses of stations, then those of groups.
    pub(super) fn table(&mut self, mut data: Reader<'_>) -> Outcome {
        let unicast = addresses(&mut data)?;
        let multicast = addresses(&mut data)?;
        if data.remaining() > 0 {
            return Err(Refused);
        }
        self.filter.unicast = unicast;
        self.filter.multicast = multicast;
        self.publish();
        Ok(())
    }

    /// VIRTIO_NET_CTRL_MAC_ADDR_SET: the card's own address from now on.
    pub(super) fn address(&mut self, data: Reader<'_>) -> Outcome {
        let mac = exactly(data)?;
        if !is_station(mac) {
            return Err(Refused);
        }
        self.filter.mac = mac;
        self.publish();
        self.shared.set_mac(mac);
        Ok(())
    }

    /// VIRTIO_NET_CTRL_VLAN_ADD and _DEL: a VLAN's number, 16 bits.
    pub(super) fn vlan(&mut self, command: u8, data: Reader<'_>) -> Outcome {
        let on = match u32::from(command) {
            VIRTIO_NET_CTRL_VLAN_ADD => true,
            VIRTIO_NET_CTRL_VLAN_DEL => false,
            _ => return Err(Refused),
        };
        let vlan = u16::from_le_bytes(exactly(data)?);
        if !self.filter.set_vlan(vlan, on) {
            return Err(Refused);
        }
        self.publish();
        Ok(())
    }
}

/// All of a command's data, if it has that length.
pub(super) fn exactly<const N: usize>(mut data: Reader<'_>) -> Result<[u8; N], Refused> {
    let value = data.read_array().ok_or(Refused)?;
    if data.remaining() > 0 {
        return Err(Refused);
    }
    Ok(value)
}

/// One struct virtio_net_ctrl_mac: how many, 32 bits, and so many addresses. A list that is too
/// long to be looked through stands for all of its kind, and is not read.
fn addresses(data: &mut Reader<'_>) -> Result<Addresses, Refused> {
    let count = u32::from_le_bytes(data.read_array().ok_or(Refused)?);
    let count = usize::try_from(count).map_err(|_| Refused)?;
    let length = count.checked_mul(size_of::<MacAddress>()).ok_or(Refused)?;
    if count > MOST_LISTED || length > data.remaining() {
        return Err(Refused);
    }
    if count > MAX_ADDRESSES {
        data.skip(length);
        return Ok(Addresses::all());
    }
    let list = (0..count).map(|_| data.read_array().ok_or(Refused));
    Ok(Addresses::some(list.collect::<Result<_, _>>()?))
}
