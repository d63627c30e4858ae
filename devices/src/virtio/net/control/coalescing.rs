//! Commands about notification coalescing (virtio 1.3, "Notifications Coalescing").

use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_NOTF_COAL_RX_SET, VIRTIO_NET_CTRL_NOTF_COAL_TX_SET,
    VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET, VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET,
};

use super::{Outcome, Refused, receive::exactly};
use crate::virtio::{
    net::{
        coalesce::{Coalescing, CoalescingCell},
        features::{NOTF_COAL, VQ_NOTF_COAL},
        shared::Shared,
    },
    queue::{Reader, Writer},
};

/// Bytes of struct virtio_net_ctrl_coal: packets, then microseconds.
const SETTING: usize = 8;

/// The feature that a command of the class VIRTIO_NET_CTRL_NOTF_COAL needs.
pub(super) fn feature_of(command: u32) -> u64 {
    match command {
        VIRTIO_NET_CTRL_NOTF_COAL_TX_SET | VIRTIO_NET_CTRL_NOTF_COAL_RX_SET => NOTF_COAL,
        _ => VQ_NOTF_COAL,
    }
}

/// Carries a command out; `result` is what comes after its acknowledgement.
pub(super) fn obey(
    shared: &Shared,
    command: u32,
    data: Reader<'_>,
    result: &mut Writer<'_>,
) -> Outcome {
    match command {
        VIRTIO_NET_CTRL_NOTF_COAL_TX_SET => set_all(shared, 1, data),
        VIRTIO_NET_CTRL_NOTF_COAL_RX_SET => set_all(shared, 0, data),
        VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET => set(shared, data),
        VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET => get(shared, data, result),
        _ => Err(Refused),
    }
}

/// One setting for all receive queues (`direction` 0) or transmit queues (1).
fn set_all(shared: &Shared, direction: usize, data: Reader<'_>) -> Outcome {
    let setting = setting(exactly(data)?);
    let cells = shared.coalescing.iter().skip(direction).step_by(2);
    let cells = cells.map(|cell| &**cell);
    let later = shared.coalescing_at_first.get(direction);
    cells.chain(later).for_each(|cell| cell.set(setting));
    Ok(())
}

/// One queue's: its index and two reserved bytes, then the setting.
fn set(shared: &Shared, mut data: Reader<'_>) -> Outcome {
    let cell = queue(shared, &mut data)?;
    cell.set(setting(exactly(data)?));
    Ok(())
}

fn get(shared: &Shared, mut data: Reader<'_>, result: &mut Writer<'_>) -> Outcome {
    let Coalescing {
        max_packets,
        max_usecs,
    } = queue(shared, &mut data)?.get();
    let [] = exactly(data)?;
    if result.remaining() < SETTING {
        return Err(Refused);
    }
    result.write(&max_packets.to_le_bytes());
    result.write(&max_usecs.to_le_bytes());
    Ok(())
}

/// The receive or transmit queue that a command is about; the control queue has no setting.
fn queue<'a>(
    shared: &'a Shared,
    data: &mut Reader<'_>,
) -> Result<&'a Arc<CoalescingCell>, Refused> {
    let [low, high, _, _] = data.read_array().ok_or(Refused)?;
    let index = u16::from_le_bytes([low, high]);
    shared.coalescing.get(usize::from(index)).ok_or(Refused)
}

fn setting([a, b, c, d, usecs @ ..]: [u8; SETTING]) -> Coalescing {
    Coalescing {
        max_packets: u32::from_le_bytes([a, b, c, d]),
        max_usecs: u32::from_le_bytes(usecs),
    }
}
