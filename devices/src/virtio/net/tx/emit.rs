//! A guest's frame into the back end's fragments, with its checksum, unless the back end completes that.
//!
//! The bytes are copied and summed up piece by piece, while they are in the cache. A frame of several
//! fragments has its checksum in the first: what follows is read twice. The guest may change it meanwhile, and
//! then has sent a frame with a wrong checksum.

use super::super::{
    NetBackend,
    backend::{ChecksumRequest, SendError},
    offload::{checksum::Checksum, packet::Packet, segment::Segmenter},
};
use crate::virtio::queue::Reader;

/// Bytes that are read at a time only to be summed up.
const PIECE: usize = 1024;

/// Sends the `len` bytes at `reader` as they are.
pub(super) fn plain<B: NetBackend>(
    backend: &mut B,
    mut reader: Reader<'_>,
    len: usize,
) -> Result<(), SendError> {
    backend.send(len, |fragment| fill(&mut reader, fragment))
}

/// Where the bytes begin that are summed up, and where the checksum goes: both in the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) field: usize,
}

impl Place {
    /// As the driver has it, if that is within a frame of `len` bytes.
    pub(super) fn new(start: usize, offset: usize, len: usize) -> Option<Self> {
        let field = start + offset;
        (field + 2 <= len).then_some(Self { start, field })
    }
}

/// Sends the `len` bytes at `reader` with the checksum that their sender left undone.
pub(super) fn with_checksum<B: NetBackend>(
    backend: &mut B,
    mut reader: Reader<'_>,
    len: usize,
    place: Place,
) -> Result<(), SendError> {
    let mut offset = 0;
    let mut checksum = None;
    backend.send(len, |fragment| {
        let known =
            checksum.or_else(|| (fragment.len() < len).then(|| ahead(&reader, place.start)));
        fill(&mut reader, fragment);
        let sum = known.unwrap_or_else(|| {
            let mut sum = Checksum::new();
            sum.add(fragment.get(place.start..).unwrap_or_default());
            sum
        });
        checksum = Some(sum);
        // As Linux does it (`skb_checksum_help`): never 0, which UDP takes for no checksum.
        for (at, byte) in (place.field..).zip(sum.finish_nonzero().to_be_bytes()) {
            let slot = at.checked_sub(offset).and_then(|at| fragment.get_mut(at));
            if let Some(slot) = slot {
                *slot = byte;
            }
        }
        offset += fragment.len();
    })
}

/// Most bytes of headers of a frame whose checksum is left to the back end: an Ethernet header with a tag, an IPv6 header
/// and the longest TCP header.
const MOST_PLAIN: usize = 14 + 4 + 40 + 60;

/// Sends the `len` bytes at `reader` with their checksum left to the back end. False, and nothing is sent: it does not
/// complete this one.
pub(super) fn without_checksum<B: NetBackend>(
    backend: &mut B,
    mut reader: Reader<'_>,
    len: usize,
    place: Place,
) -> Result<bool, SendError> {
    if !backend.completes_checksums() {
        return Ok(false);
    }
    let Some(request) = plain_request(&reader, len, place) else {
        return Ok(false);
    };
    let sent = backend.send_with_checksum(len, request, |fragment| fill(&mut reader, fragment));
    match sent {
        Ok(()) => Ok(true),
        Err(SendError::NoChecksum) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What to ask the back end for, if it is the checksum that it finds by itself. Some cards look at the headers and not at
/// the request, so a driver that asks for anything else has it done here.
fn plain_request(reader: &Reader<'_>, len: usize, place: Place) -> Option<ChecksumRequest> {
    let mut headers = [0; MOST_PLAIN];
    let read = reader.clone().read(&mut headers);
    let packet = Packet::parse(headers.get(..read.min(len))?).ok()?;
    let asked = (packet.transport_start, packet.checksum_start());
    if !packet.is_plain() || packet.end != len || asked != (place.start, place.field) {
        return None;
    }
    Some(ChecksumRequest {
        start: u16::try_from(place.start).ok()?,
        offset: u16::try_from(packet.checksum_offset()).ok()?,
    })
}

/// Sends the next segment, whose payload is at `reader`, with its checksum left to the back end, and passes over both.
pub(super) fn partial_segment<B: NetBackend>(
    backend: &mut B,
    segmenter: &mut Segmenter,
    reader: &mut Reader<'_>,
    request: ChecksumRequest,
) -> Result<usize, SendError> {
    let len = segmenter.header_len() + segmenter.payload_len();
    let mut at = reader.clone();
    let mut headers = segmenter.partial_header();
    backend.send_with_checksum(len, request, |fragment| {
        let (here, later) = headers.split_at(headers.len().min(fragment.len()));
        let (header, body) = fragment.split_at_mut(here.len());
        header.copy_from_slice(here);
        fill(&mut at, body);
        headers = later;
    })?;
    *reader = at;
    segmenter.advance();
    Ok(len)
}

/// Sends the next segment, whose payload is at `reader`, and passes over both.
pub(super) fn segment<B: NetBackend>(
    backend: &mut B,
    segmenter: &mut Segmenter,
    reader: &mut Reader<'_>,
) -> Result<usize, SendError> {
    let payload = segmenter.payload_len();
    let header_len = segmenter.header_len();
    let len = header_len + payload;
    let mut at = reader.clone();
    let mut offset = 0;
    let mut ahead = None;
    backend.send(len, |fragment| {
        if fragment.len() == len {
            let (header, body) = fragment.split_at_mut(header_len);
            fill(&mut at, body);
            let mut sum = Checksum::new();
            sum.add(body);
            header.copy_from_slice(segmenter.header(sum));
            return;
        }
        let sum = *ahead.get_or_insert_with(|| sum_of(at.clone(), payload));
        let rest = segmenter.header(sum).get(offset..).unwrap_or_default();
        let (header, body) = fragment.split_at_mut(rest.len().min(fragment.len()));
        let (rest, _) = rest.split_at(header.len());
        header.copy_from_slice(rest);
        fill(&mut at, body);
        offset += fragment.len();
    })?;
    *reader = at;
    segmenter.advance();
    Ok(len)
}

/// The sum of what comes after the next `start` bytes.
fn ahead(reader: &Reader<'_>, start: usize) -> Checksum {
    let mut reader = reader.clone();
    reader.skip(start);
    let len = reader.remaining();
    sum_of(reader, len)
}

/// The sum of the next `len` bytes.
fn sum_of(mut reader: Reader<'_>, len: usize) -> Checksum {
    let mut sum = Checksum::new();
    let mut piece = [0; PIECE];
    let mut left = len;
    while left > 0 {
        let (piece, _) = piece.split_at_mut(left.min(PIECE));
        let read = reader.read(piece);
        if read == 0 {
            break;
        }
        let (piece, _) = piece.split_at(read);
        sum.add(piece);
        left -= read;
    }
    sum
}

/// Writes all of `fragment`. The reader was found to hold as many bytes as all fragments have
/// together; were it not so, zeros are sent rather than what the memory held before.
fn fill(reader: &mut Reader<'_>, fragment: &mut [u8]) {
    let copied = reader.read(fragment);
    if let (_, rest @ [_, ..]) = fragment.split_at_mut(copied) {
        rest.fill(0);
    }
}
