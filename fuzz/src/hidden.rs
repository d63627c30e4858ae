//! Frames of the wire whose checksums may be undone deeper in them: in tunnels, and SCTP's.

use arbitrary::{Result, Unstructured};
use devices::{
    testing::tunnels::Tunnel,
    virtio::net::offload::{hidden::Hidden, packet::Packet},
};

use crate::frames;

/// Completes what a tunnel carries as it is or nearly so, or any bytes.
pub fn run(data: &[u8]) {
    let _ = script(&mut Unstructured::new(data));
}

fn script(u: &mut Unstructured<'_>) -> Result<()> {
    if u.ratio(1, 4)? {
        let rest = u.len();
        check(u.bytes(rest)?);
        return Ok(());
    }
    let mut tunnel = u.choose(&Tunnel::all())?.clone();
    tunnel.tags = vec![(0x8100, 1); u.int_in_range(0..=2)?];
    let inner = frames::spec(u, 1500)?;
    let (mut whole, partial) = (inner.build(), inner.build_partial());
    // The two are one number to this checksum. Linux, too, writes the other one (`CSUM_MANGLED_0`).
    let field = inner.transport_start() + inner.checksum_offset();
    if whole[field..field + 2] == [0; 2] {
        whole[field..field + 2].fill(0xff);
    }
    let mut frame = tunnel.with_inner(&whole, &partial, &inner);
    let is_routed = Packet::parse(&whole).is_ok_and(|packet| packet.is_routed);
    if let Some(done) = check(&frame)
        && !is_routed
    {
        assert_eq!(done, tunnel.carry(&whole, &inner));
    }
    frames::spoil(u, &mut frame)?;
    if u.ratio(1, 8)?
        && let Some(protocol) = frame.get_mut(tunnel.tags.len() * 4 + 23)
    {
        *protocol = 132;
    }
    check(&frame);
    Ok(())
}

/// The frame as it is to be, if anything is to be changed: checksums within it, the same in any pieces, and once and for
/// all.
fn check(frame: &[u8]) -> Option<Vec<u8>> {
    let done = complete(frame)?;
    assert_eq!(done.len(), frame.len());
    assert!(complete(&done).is_none_or(|again| again == done));
    Some(done)
}

fn complete(frame: &[u8]) -> Option<Vec<u8>> {
    let hidden = Hidden::find(&[frame], &Packet::parse(frame))?;
    let patches = hidden.complete(&[frame]);
    // All headers that are looked at.
    let (start, rest) = frame.split_at(frame.len().min(1000));
    let pieces = [start, rest];
    assert_eq!(Hidden::find(&pieces, &Packet::parse(start)), Some(hidden));
    assert_eq!(hidden.complete(&pieces), patches);
    let mut done = frame.to_vec();
    let mut before = 14;
    for (at, number) in patches.into_iter().flatten() {
        assert!(at >= before, "one behind the other");
        before = at + 2;
        done[at..before].copy_from_slice(&number.to_be_bytes());
    }
    Some(done)
}
