//! Frames that are shorter than Ethernet's shortest: they go out with zeros behind them.

use net_afxdp::{PortConfig, SendError};

use crate::{
    net::Net,
    packet::{Packet, frame, on_the_wire},
    traffic::{MODES, config, open, send},
};

/// Chunks that held something else before, all of them: no byte of it is in what is behind a short frame.
#[test]
fn short_frames_are_sent_with_zeros_up_to_60_bytes() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let (_port, mut queue) = open(&PortConfig {
            mode: Some(mode),
            frames: 256,
            ..config(&net.near)
        });
        let far = Packet::open(&net.far);
        for _ in 0..4 {
            for _ in 0..64 {
                queue.send(1000, |bytes| bytes.fill(0xa5)).unwrap();
            }
            queue.flush().unwrap();
        }
        let before = queue.counters();
        let mut bytes = 0;
        for length in 18..=61 {
            send(&mut queue, &frame(7, length)).unwrap();
            queue.flush().unwrap();
            let got = far.receive().expect("a frame");
            assert!(got == on_the_wire(frame(7, length)), "{mode}: {length}");
            bytes += length.max(60) as u64;
        }
        // As short as it can be: of what the packet socket looks for there is the EtherType.
        let shortest = &frame(7, 18)[..14];
        send(&mut queue, shortest).unwrap();
        queue.flush().unwrap();
        assert!(far.receive() == Some(on_the_wire(shortest.to_vec())));
        let counters = queue.counters();
        assert_eq!(counters.tx_bytes - before.tx_bytes, bytes + 60);
        assert_eq!(send(&mut queue, &shortest[..13]), Err(SendError::TooShort));
        assert!(queue.accounting().is_balanced(), "{:?}", queue.accounting());
    }
}
