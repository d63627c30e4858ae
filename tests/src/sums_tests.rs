//! On frames that a Linux kernel sent, with checksums of its own.

use super::*;

const ICMP_V4: &str = "020000000002 020000000001 0800 45000025855c40004001a16b0a0700010a070002 \
    0800ad4f369f0001000102030405060708";
const ICMP_V6: &str = "020000000002 020000000001 86dd 6008a20600103a40 \
    fd070000000000000000000000000001fd070000000000000000000000000002 800042f136a000010001020304050607";
const UDP_V4: &str = "020000000002 020000000001 0800 45000022073040004011 1f8b0a0700010a070002 \
    c5300009000ee2ab68656c6c6f0a";
const UDP_V6: &str = "020000000002 020000000001 86dd 600cd531000c1140 \
    fd070000000000000000000000000001fd070000000000000000000000000002 e5890009000c3ec16865790a";
const TCP_V4: &str = "020000000002 020000000001 0800 4500003c3f7f40004006e72c0a0700010a070002 \
    a87e00090949316b00000000a002faf015750000020405b40402080a0fef305c000000000103030a";
const TCP_V6: &str = "020000000002 020000000001 86dd 600ea88900280640 \
    fd070000000000000000000000000001fd070000000000000000000000000002 \
    aae80009b12a113b00000000a002fd2010eb0000020405a00402080aee7ce41e000000000103030a";

fn frame(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|it| std::str::from_utf8(it).unwrap());
    pairs
        .map(|it| u8::from_str_radix(it, 16).unwrap())
        .collect()
}

fn sums(frames: &[Vec<u8>]) -> Sums {
    let mut sums = Sums::default();
    frames.iter().for_each(|it| sums.look_at(it));
    sums
}

fn tagged(text: &str) -> Vec<u8> {
    let mut frame = frame(text);
    frame.splice(12..12, [0x81, 0, 0, 7]);
    frame
}

#[test]
fn what_a_kernel_sends_is_right_with_and_without_tags_and_padding() {
    let all = [ICMP_V4, ICMP_V6, UDP_V4, UDP_V6, TCP_V4, TCP_V6];
    let plain = sums(&all.map(frame));
    let expected = Sums {
        tcp: 2,
        udp: 2,
        icmp: 2,
        ..Sums::default()
    };
    assert_eq!(plain, expected);
    let expected = Sums {
        tagged: 6,
        ..expected
    };
    assert_eq!(sums(&all.map(tagged)), expected);
    let padded = all.map(|it| [frame(it), vec![0xee; 9]].concat());
    assert_eq!(sums(&padded), plain);
}

/// Behind the Ethernet header, the checksums cover everything but the hop limit and the flow label of IPv6.
#[test]
fn every_bit_counts() {
    for (text, uncovered) in [
        (ICMP_V4, 14..14),
        (UDP_V4, 14..14),
        (TCP_V4, 14..14),
        (ICMP_V6, 14..22),
        (UDP_V6, 14..22),
        (TCP_V6, 14..22),
    ] {
        let right = frame(text);
        for at in (14..right.len()).filter(|at| !uncovered.contains(at)) {
            let mut wrong = right.clone();
            wrong[at] ^= 0x10;
            let sums = sums(&[wrong]);
            assert_eq!(
                (sums.wrong, sums.samples.len()),
                (1, 1),
                "byte {at} of {text}"
            );
        }
    }
}

#[test]
fn fragments_partial_checksums_and_other_protocols_are_told_apart() {
    // The first fragment of a ping, and a header that says so of nothing that is checked.
    let mut fragment = frame(UDP_V4);
    fragment[20] = 0x20;
    // The header's checksum goes down by as much as the flags went up.
    fragment[24] = 0x3f;
    assert_eq!(sums(&[fragment]).fragments, 1);
    // Only the pseudo-header was summed up.
    let mut partial = frame(UDP_V4);
    let pseudo = sum(&[&partial[26..34], &[0, 17, 0, 14]]).to_be_bytes();
    partial[40..42].copy_from_slice(&pseudo);
    assert_eq!(sums(&[partial]).wrong, 1);
    let mut none = frame(UDP_V4);
    none[40..42].fill(0);
    assert_eq!(sums(&[none]).udp, 1);
    let mut none = frame(UDP_V6);
    none[60..62].fill(0);
    assert_eq!(sums(&[none]).wrong, 1);
    let mut arp = frame(UDP_V4);
    arp[13] = 6;
    assert_eq!(sums(&[arp]).others, 1);
    for length in 0..frame(TCP_V6).len() {
        sums(&[frame(TCP_V6)[..length].to_vec()]);
    }
}
