//! Commands about statistics (VIRTIO_NET_F_DEVICE_STATS; virtio 1.3, "Device Statistics").
//!
//! Only what is counted is offered: of received frames it is not counted what became of their checksums, and none is
//! dropped for the card's speed. All numbers are since the card was made, and survive resets.

use super::{Outcome, Refused, receive::exactly};
use crate::virtio::{
    net::{
        counters::NetCounters,
        features::MQ,
        offloads::{CSUM, GUEST_TSO, HOST_GSO},
        shared::Shared,
    },
    queue::{Reader, Writer},
};

/// VIRTIO_NET_CTRL_STATS.
pub(super) const CLASS: u32 = 8;
/// VIRTIO_NET_CTRL_STATS_QUERY.
const QUERY: u32 = 0;
/// VIRTIO_NET_CTRL_STATS_GET.
const GET: u32 = 1;

/// Bytes of what is asked of one queue, of an answer's header, and of each number in it.
const REQUEST: usize = 16;
const HEADER: usize = 8;
const NUMBER: usize = 8;
/// Most queues that one command may ask about, the same one several times among them.
const MOST_REQUESTS: usize = 1024;

/// A type of statistics: its bit in VIRTIO_NET_STATS_TYPE_* is the number that answers begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    RxBasic = 0,
    RxGso = 2,
    TxBasic = 16,
    TxCsum = 17,
    TxGso = 18,
    Control = 32,
}

/// Those of receive queues, of transmit queues, and of the control queue, in the order of their numbers.
const RX: &[Kind] = &[Kind::RxBasic, Kind::RxGso];
const TX: &[Kind] = &[Kind::TxBasic, Kind::TxCsum, Kind::TxGso];
const CONTROL: &[Kind] = &[Kind::Control];

impl Kind {
    const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Whether a driver with these features can ask for it.
    const fn is_there(self, features: u64) -> bool {
        match self {
            Self::RxBasic | Self::TxBasic | Self::Control => true,
            Self::RxGso => features & GUEST_TSO != 0,
            Self::TxCsum => features & CSUM != 0,
            Self::TxGso => features & HOST_GSO != 0,
        }
    }
}

/// One queue that the driver asks about.
#[derive(Debug, Clone, Copy)]
struct Request {
    index: u16,
    kinds: &'static [Kind],
    /// Bits of those that are wanted.
    wanted: u64,
}

/// Carries a command out; `result` is what comes after its acknowledgement.
pub(super) fn obey(
    shared: &Shared,
    features: u64,
    command: u32,
    data: Reader<'_>,
    result: &mut Writer<'_>,
) -> Outcome {
    match command {
        QUERY => query(features, data, result),
        GET => {
            let requests = requests(shared, features, data)?;
            // As far as there is room: the driver sees by the length how much that was.
            let _ = requests
                .iter()
                .try_for_each(|it| answer(shared, it, result));
            Ok(())
        }
        _ => Err(Refused),
    }
}

fn query(features: u64, data: Reader<'_>, result: &mut Writer<'_>) -> Outcome {
    let [] = exactly(data)?;
    let all = [RX, TX, CONTROL].concat();
    let there = all.into_iter().filter(|kind| kind.is_there(features));
    let bits = there.fold(0, |bits, kind| bits | kind.bit());
    if result.remaining() < NUMBER {
        return Err(Refused);
    }
    result.write(&bits.to_le_bytes());
    Ok(())
}

/// What the command asks for, all of it checked: if anything is wrong, nothing of it is answered.
fn requests(shared: &Shared, features: u64, mut data: Reader<'_>) -> Result<Vec<Request>, Refused> {
    let count = data.remaining() / REQUEST;
    if count == 0 || count > MOST_REQUESTS || !data.remaining().is_multiple_of(REQUEST) {
        return Err(Refused);
    }
    let request = |_| {
        let [a, b, _, _, _, _, _, _, wanted @ ..]: [u8; REQUEST] =
            data.read_array().ok_or(Refused)?;
        let index = u16::from_le_bytes([a, b]);
        let kinds = kinds_of(shared, features, index)?;
        let wanted = u64::from_le_bytes(wanted);
        let there = kinds.iter().filter(|kind| kind.is_there(features));
        let there = there.fold(0, |bits, kind| bits | kind.bit());
        if wanted & !there != 0 {
            return Err(Refused);
        }
        Ok(Request {
            index,
            kinds,
            wanted,
        })
    };
    (0..count).map(request).collect()
}

/// What there is of queue `index` (5.1.2: receive, transmit, ..., control; one pair without MQ).
fn kinds_of(shared: &Shared, features: u64, index: u16) -> Result<&'static [Kind], Refused> {
    let pairs = if features & MQ == 0 {
        1
    } else {
        shared.counters.len()
    };
    let index = usize::from(index);
    match index {
        _ if index == 2 * pairs => Ok(CONTROL),
        _ if index > 2 * pairs => Err(Refused),
        _ if index.is_multiple_of(2) => Ok(RX),
        _ => Ok(TX),
    }
}

/// Writes what is wanted of one queue; `None`: there was no room for all of it.
fn answer(shared: &Shared, request: &Request, result: &mut Writer<'_>) -> Option<()> {
    let pair = usize::from(request.index / 2);
    let counters = match request.kinds {
        CONTROL => shared.control_counters.snapshot(),
        _ => shared
            .counters
            .get(pair)
            .map(|it| it.snapshot())
            .unwrap_or_default(),
    };
    for &kind in request.kinds {
        if request.wanted & kind.bit() == 0 {
            continue;
        }
        let losses = || {
            shared
                .losses
                .get(pair)
                .and_then(Option::as_ref)
                .map_or(0, |losses| losses())
        };
        let numbers = numbers(kind, &counters, losses);
        let size = HEADER + NUMBER * numbers.len();
        if result.remaining() < size {
            return None;
        }
        let [index_low, index_high] = request.index.to_le_bytes();
        let [size_low, size_high] = u16::try_from(size).unwrap_or(u16::MAX).to_le_bytes();
        result.write(&[
            kind as u8, 0, index_low, index_high, 0, 0, size_low, size_high,
        ]);
        for number in numbers {
            result.write(&number.to_le_bytes());
        }
    }
    Some(())
}

/// The numbers of one type, in the order of its structure. They wrap, and so do those that are made of several.
fn numbers(kind: Kind, count: &NetCounters, losses: impl Fn() -> u64) -> Vec<u64> {
    let sum = |numbers: &[u64]| {
        numbers
            .iter()
            .fold(0, |sum, &it| u64::wrapping_add(sum, it))
    };
    match kind {
        Kind::Control => vec![
            count.control_commands,
            count.control_commands.wrapping_sub(count.control_refused),
        ],
        Kind::RxBasic => {
            let overruns = losses();
            vec![
                count.rx_kicks,
                count.rx_frames.wrapping_sub(count.rx_coalesced),
                count.rx_bytes.wrapping_sub(count.rx_coalesced_headers),
                count.interrupts.wrapping_sub(count.tx_interrupts),
                sum(&[count.rx_too_long, count.rx_bad_buffer, overruns]),
                overruns,
            ]
        }
        // Whatever is larger than it came was made so by us. "Coalesced" is what it was made of: so Linux has it.
        Kind::RxGso => vec![
            count.rx_merged,
            count.rx_merged_bytes,
            sum(&[count.rx_merged, count.rx_coalesced]),
            sum(&[count.rx_merged_bytes, count.rx_coalesced_headers]),
        ],
        Kind::TxBasic => {
            let malformed = sum(&[count.tx_too_short, count.tx_bad_offload]);
            vec![
                count.tx_kicks,
                count.tx_frames,
                count.tx_bytes,
                count.tx_interrupts,
                sum(&[malformed, count.tx_too_long, count.tx_inactive]),
                malformed,
            ]
        }
        Kind::TxCsum => {
            let whole = count.tx_frames.wrapping_sub(count.tx_segments);
            vec![
                whole.wrapping_sub(count.tx_partial),
                sum(&[count.tx_partial, count.tx_segmented]),
            ]
        }
        // All of them are cut.
        Kind::TxGso => vec![
            count.tx_segmented,
            count.tx_segmented_bytes,
            count.tx_segments,
            count.tx_segments_bytes,
            0,
            0,
        ],
    }
}
