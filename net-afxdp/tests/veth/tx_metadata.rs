//! Checksums that are left to the kernel, which passes the request on to the far end of a veth, or meets it
//! itself when the near end may not.

use std::process::Command;

use net_afxdp::{
    AttachMode, ChecksumRequest, Port, PortConfig, Probe, Queue, SendError, TxMetadata,
};

use crate::{
    net::{Net, ip, skipped},
    packet::{Packet, frame, on_the_wire},
    traffic::{MODES, config, open, receive, send},
};

/// What is not summed up: the frame's header and a number of its own.
const REQUEST: ChecksumRequest = ChecksumRequest {
    start: 18,
    offset: 2,
};

/// Where the checksum is.
const FIELD: usize = 20;

fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|it| it.parse::<u32>());
    let mut number = || numbers.next().unwrap().unwrap();
    (number(), number())
}

/// Whether this kernel has TX metadata (6.8), by its number; says what is skipped if not.
pub(crate) fn kernel_can() -> bool {
    let can = kernel() >= (6, 8);
    if !can {
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        skipped(&format!("{test}: no TX metadata before Linux 6.8"));
    }
    can
}

fn with_metadata(ifname: &str, mode: AttachMode) -> PortConfig {
    PortConfig {
        mode: Some(mode),
        tx_metadata: TxMetadata::On,
        ..config(ifname)
    }
}

fn leave_checksum(queue: &mut Queue, frame: &[u8]) -> Result<(), SendError> {
    let mut rest = frame;
    queue.send_with_checksum(frame.len(), REQUEST, |fragment| {
        let (bytes, after) = rest.split_at(fragment.len());
        fragment.copy_from_slice(bytes);
        rest = after;
    })
}

fn ethtool(words: &str) {
    let output = Command::new("ethtool")
        .args(words.split(' '))
        .output()
        .expect("ethtool");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ethtool {words}: {said}");
}

/// The frame with its checksum, by RFC 1071.
fn completed(frame: &[u8]) -> Vec<u8> {
    let mut sum = 0u32;
    for pair in frame[REQUEST.start.into()..].chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = match !u16::try_from(sum).unwrap() {
        0 => 0xffff,
        sum => sum,
    };
    let mut frame = frame.to_vec();
    frame[FIELD..FIELD + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Frames of these lengths, with and without a checksum to complete in turns, arrive whole and in order:
/// as they were, or completed.
fn pass(queue: &mut Queue, far: &Packet, lengths: &[usize], completes: bool) {
    for round in 0..20 {
        let numbered = (round * 100..).zip(lengths);
        let sent: Vec<_> = numbered.map(|(n, &l)| frame(n, l)).collect();
        for (number, frame) in sent.iter().enumerate() {
            if number % 3 == 0 {
                send(queue, frame).unwrap();
            } else {
                leave_checksum(queue, frame).unwrap();
            }
        }
        queue.flush().unwrap();
        for (number, frame) in sent.iter().enumerate() {
            let got = far.receive().expect("a frame");
            let want = match completes && number % 3 != 0 {
                true => completed(frame),
                false => frame.clone(),
            };
            assert!(got == on_the_wire(want), "{number}: {} bytes", frame.len());
        }
    }
    assert_eq!(queue.counters().tx_lost, 0);
    assert_eq!(queue.counters().invalid_descriptors, 0);
    assert_eq!(queue.statistics().unwrap().tx_invalid_descs, 0);
    assert!(queue.accounting().is_balanced(), "{:?}", queue.accounting());
}

#[test]
fn checksums_pass_a_veth_undone_and_are_completed_where_its_offload_is_off() {
    let Some(net) = Net::new() else { return };
    if !kernel_can() {
        return;
    }
    let lengths = [22, 23, 59, 60, 61, 64, 127, 128, 1000, 1513, 1514];
    for mode in MODES {
        let (_port, mut queue) = open(&with_metadata(&net.near, mode));
        assert!(queue.completes_checksums() && !queue.zero_copy());
        assert_eq!(queue.max_frame(), 4064);
        let far = Packet::open(&net.far);
        pass(&mut queue, &far, &lengths, false);
        ethtool(&format!("-K {} tx off", net.near));
        pass(&mut queue, &far, &lengths, true);
        ethtool(&format!("-K {} tx on", net.near));
        // The other direction knows nothing of it.
        far.send(&frame(7, 1514)).unwrap();
        assert!(receive(&mut queue, 1) == [frame(7, 1514)], "{mode}");
    }
}

#[test]
fn checksums_of_frames_of_several_chunks_are_completed() {
    let Some(net) = Net::new() else { return };
    if !kernel_can() {
        return;
    }
    ip(&format!("link set dev {} mtu 9000", net.near));
    ip(&format!("link set dev {} mtu 9000", net.far));
    let lengths = [60, 4063, 4064, 4065, 4096, 4097, 8128, 8129, 9014];
    for mode in MODES {
        let (port, mut queue) = open(&with_metadata(&net.near, mode));
        assert_eq!((port.mtu(), queue.max_frame()), (9000, 3 * 4064));
        let far = Packet::open(&net.far);
        pass(&mut queue, &far, &lengths, false);
        ethtool(&format!("-K {} tx off", net.near));
        pass(&mut queue, &far, &lengths, true);
        ethtool(&format!("-K {} tx on", net.near));
    }
}

/// The kernel would say EINVAL to such a frame again and again, and not get past it.
#[test]
fn a_checksum_outside_of_the_first_chunk_is_refused_and_what_follows_goes_out() {
    let Some(net) = Net::new() else { return };
    if !kernel_can() {
        return;
    }
    let (_port, mut queue) = open(&with_metadata(&net.near, AttachMode::Native));
    let far = Packet::open(&net.far);
    let (before, free) = (frame(1, 100), queue.accounting().free);
    for (start, offset) in [(99, 0), (0, 99), (98, 1), (u16::MAX, u16::MAX)] {
        let request = ChecksumRequest { start, offset };
        let refused = queue.send_with_checksum(100, request, |_| panic!("not to be filled"));
        assert_eq!(refused, Err(SendError::NoChecksum), "{request:?}");
    }
    assert_eq!(queue.accounting().free, free);
    // At its very end, and at its beginning.
    for (start, offset) in [(98, 0), (0, 98), (0, 12)] {
        let request = ChecksumRequest { start, offset };
        queue
            .send_with_checksum(100, request, |bytes| bytes.copy_from_slice(&before))
            .unwrap();
        queue.flush().unwrap();
        assert!(far.receive() == Some(before.clone()), "{request:?}");
    }
    pass(&mut queue, &far, &[60], false);
}

#[test]
fn without_metadata_checksums_are_to_be_completed_before() {
    let Some(net) = Net::new() else { return };
    // A veth's driver says nothing of checksums.
    for tx_metadata in [TxMetadata::Auto, TxMetadata::Off] {
        let (_port, mut queue) = open(&PortConfig {
            tx_metadata,
            ..config(&net.near)
        });
        assert!(!queue.completes_checksums());
        assert_eq!(queue.max_frame(), 4096);
        let refused = leave_checksum(&mut queue, &frame(1, 100));
        assert_eq!(refused, Err(SendError::NoChecksum));
    }
}

#[test]
fn a_kernel_without_metadata_is_named_with_what_to_do() {
    let Some(net) = Net::new() else { return };
    let config = with_metadata(&net.near, AttachMode::Native);
    let blocking = |config: &PortConfig| {
        let probe = Probe::of(config).unwrap();
        assert!(probe.features.is_none_or(|it| !it.tx_checksum));
        let problem = probe.problems.into_iter().find(|it| it.blocks);
        problem.map(|it| it.what)
    };
    if kernel() >= (6, 8) {
        assert_eq!(blocking(&config), None);
        return;
    }
    let said = "TX metadata is asked for (tx-metadata=on), but the kernel does not register memory for \
                it: Invalid argument (os error 22). Linux 6.8 and later do; use tx-metadata=auto or off \
                on this one";
    let text = Port::open(&config).unwrap_err().to_string();
    assert_eq!(text, format!("queue 0 of {}: {said}", net.near));
    assert_eq!(blocking(&config).as_deref(), Some(said));
    assert_eq!(net.interface().xdp_program(), None);
    // Not asked for, it is not there.
    let (_port, queue) = open(&crate::traffic::config(&net.near));
    assert!(!queue.completes_checksums());
}
