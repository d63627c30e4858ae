//! Frames that are sent from memory of the caller's.

use std::{fs::File, os::unix::fs::FileExt, time::Instant};

use net_afxdp::{
    FileRange, Piece, Port, PortConfig, Queue, SendError, SharedMemory, Source, TxMetadata,
};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::{
    child,
    net::{Net, ip, kernel_is_new},
    packet::{PATIENCE, Packet, Random, frame, on_the_wire},
    traffic::{MODES, config, send},
};

/// Bytes of the memory.
const LENGTH: u64 = 1 << 20;

/// The memory, and a queue that knows it.
struct Shared {
    file: File,
    _port: Port,
    queue: Queue,
}

impl Shared {
    fn open(config: &PortConfig) -> Self {
        let (file, memory) = memory(LENGTH);
        let config = PortConfig {
            scattered: true,
            ..config.clone()
        };
        let port = Port::open_sharing(&config, Source::OwnProgram, Some(&memory));
        let mut port = port.unwrap_or_else(|error| panic!("{error}"));
        let queue = port.take_queues().remove(0);
        assert!(queue.sends_in_place());
        Self {
            file,
            _port: port,
            queue,
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) {
        self.file.write_all_at(bytes, offset).unwrap();
    }

    fn send(&mut self, bytes: &[u8], offset: u64, token: u32) -> Result<(), SendError> {
        self.write(bytes, offset);
        let piece = piece(offset, bytes.len());
        self.queue.send_in_place(&[piece], token)
    }

    /// Waits until so many frames have come back.
    fn take_sent(&mut self, count: usize) -> Vec<u32> {
        let deadline = Instant::now() + PATIENCE;
        let mut tokens = Vec::new();
        while tokens.len() < count {
            assert!(Instant::now() < deadline, "{} of {count}", tokens.len());
            self.queue.take_sent(|token| tokens.push(token));
        }
        tokens
    }

    fn assert_sound(&self) {
        assert_eq!(self.queue.in_flight(), 0);
        let accounting = self.queue.accounting();
        assert!(
            accounting.is_balanced() && accounting.in_place == 0,
            "{accounting:?}"
        );
        assert_eq!(self.queue.counters().invalid_descriptors, 0);
        assert_eq!(self.queue.statistics().unwrap().tx_invalid_descs, 0);
    }
}

/// A file in memory, and two ranges of it that count as one.
fn memory(length: u64) -> (File, SharedMemory) {
    let file = File::from(memfd_create("in-place", MemfdFlags::CLOEXEC).unwrap());
    ftruncate(&file, length).unwrap();
    let half = length / 2;
    let range = |offset| FileRange {
        file: file.try_clone().unwrap().into(),
        offset,
        length: half,
    };
    let memory = SharedMemory::new(vec![range(0), range(half)]).unwrap();
    assert_eq!(memory.length(), length);
    (file, memory)
}

fn piece(offset: u64, length: usize) -> Piece {
    let length = u32::try_from(length).unwrap();
    Piece { offset, length }
}

/// What lies behind a short frame is not the queue's, so no zeros can be put there, and nothing else is to be sent.
#[test]
fn short_frames_are_not_sent_from_where_they_lie() {
    let Some(net) = Net::new() else { return };
    let mut near = Shared::open(&config(&net.near));
    for length in 14..60 {
        let refused = near.queue.send_in_place(&[piece(0, length)], 1);
        assert_eq!(refused, Err(SendError::NotInPlace), "{length}");
    }
    assert_eq!(near.queue.send_in_place(&[piece(0, 60)], 1), Ok(()));
}

#[test]
fn frames_go_out_from_where_they_lie() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let mut near = Shared::open(&PortConfig {
            mode: Some(mode),
            frames: 256,
            ..config(&net.near)
        });
        let far = Packet::open(&net.far);
        let mut random = Random::new(1);
        for round in 0..100 {
            let mut sent = Vec::new();
            // Each in a page and a half of its own.
            for number in 0..20 {
                let bytes = frame(round * 20 + number, 18 + random.below(1497));
                let offset = u64::from(number) * 6144 + random.below(4096) as u64;
                // From the wrong side of a boundary, or before Linux 6.6, they have to be copied.
                match near.send(&bytes, offset, number) {
                    Ok(()) => {}
                    Err(SendError::NotInPlace) => {
                        let crosses = offset / 4096 < (offset + bytes.len() as u64 - 1) / 4096;
                        let few = !kernel_is_new() || 4096 - offset % 4096 < 128;
                        assert!(bytes.len() < 60 || crosses && few);
                        send(&mut near.queue, &bytes).unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
                sent.push(on_the_wire(bytes));
            }
            let in_flight = near.queue.in_flight();
            near.queue.flush().unwrap();
            for bytes in &sent {
                let got = far.receive().expect("a frame");
                assert!(got == *bytes, "{mode}, round {round}: {} bytes", got.len());
            }
            let mut tokens = near.take_sent(in_flight);
            tokens.sort_unstable();
            tokens.dedup();
            assert_eq!(tokens.len(), in_flight);
        }
        let counters = near.queue.counters();
        assert_eq!(counters.tx_packets, 2000);
        assert!(counters.tx_in_place > 1000, "{counters:?}");
        near.assert_sound();
    }
}

#[test]
fn frames_in_pieces_are_one_on_the_wire() {
    let Some(net) = Net::new() else { return };
    if !crate::net::kernel_can() {
        return;
    }
    for mode in MODES {
        let mut near = Shared::open(&PortConfig {
            mode: Some(mode),
            ..config(&net.near)
        });
        assert!(near.queue.multi_buffer());
        let far = Packet::open(&net.far);
        let bytes = frame(7, 1514);
        let (head, rest) = bytes.split_at(128);
        let (middle, end) = rest.split_at(1);
        let half = LENGTH / 2;
        let places = [(half + 5000, head), (77, middle), (half - 700, end)];
        for (offset, part) in places {
            near.write(part, offset);
        }
        let pieces = places.map(|(offset, part)| piece(offset, part.len()));
        near.queue.send_in_place(&pieces, 9).unwrap();
        near.queue.flush().unwrap();
        assert_eq!(far.receive(), Some(bytes));
        assert_eq!(near.take_sent(1), [9]);
        near.assert_sound();
    }
}

/// More at once than the ring holds, and copies among them.
#[test]
fn a_full_ring_takes_no_more_until_frames_come_back() {
    let Some(net) = Net::new() else { return };
    let mut near = Shared::open(&PortConfig {
        frames: 64,
        ..config(&net.near)
    });
    let far = Packet::open(&net.far);
    for round in 0..50 {
        let mut sent = 0;
        loop {
            let bytes = frame(sent, 60);
            let result = match sent % 3 {
                0 => send(&mut near.queue, &bytes),
                _ => near.send(&bytes, u64::from(sent) * 128, sent),
            };
            match result {
                Ok(()) => sent += 1,
                Err(error) => break assert_eq!(error, SendError::Full),
            }
        }
        assert_eq!(sent, 32, "round {round}: the tx ring's size");
        near.queue.flush().unwrap();
        for number in 0..sent {
            assert_eq!(far.receive(), Some(frame(number, 60)));
        }
        near.take_sent(21);
        near.assert_sound();
    }
}

#[test]
fn what_waits_for_a_link_can_be_withdrawn() {
    let Some(net) = Net::new() else { return };
    for mode in MODES {
        let mut near = Shared::open(&PortConfig {
            mode: Some(mode),
            ..config(&net.near)
        });
        let far = Packet::open(&net.far);
        ip(&format!("link set dev {} down", net.near));
        for number in 0..10 {
            let offset = u64::from(number) * 4096;
            near.send(&frame(number, 1000), offset, number).unwrap();
        }
        let error = near.queue.flush().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
        assert_eq!(near.queue.take_sent(|_| {}), 0);
        assert_eq!(near.queue.in_flight(), 10);
        assert_eq!(near.queue.withdraw(), 0);
        assert_eq!(near.take_sent(10), Vec::from_iter(0..10));
        near.assert_sound();
        // The memory is the caller's again.
        near.write(&[0xee; 40960], 0);
        ip(&format!("link set dev {} up", net.near));
        near.queue.flush().unwrap();
        for number in 0..10 {
            assert_eq!(far.receive(), Some(frame(number, 1000)), "{mode}");
        }
        near.assert_sound();
    }
}

/// The memory is the kernel's own hold on its pages: who gave it may be gone.
#[test]
fn the_memory_may_go_before_the_queue() {
    let Some(net) = Net::new() else { return };
    let mut near = Shared::open(&config(&net.near));
    let bytes = frame(1, 500);
    near.write(&bytes, 8192);
    near.file = File::open("/dev/null").unwrap();
    near.queue.send_in_place(&[piece(8192, 500)], 1).unwrap();
    near.queue.flush().unwrap();
    assert_eq!(Packet::open(&net.far).try_receive(), None);
    near.take_sent(1);
    let far = Packet::open(&net.far);
    near.queue.send_in_place(&[piece(8192, 500)], 1).unwrap();
    near.queue.flush().unwrap();
    assert_eq!(far.receive(), Some(bytes));
    near.take_sent(1);
    near.assert_sound();
}

/// Every queue locks all of the memory.
#[test]
fn too_little_locked_memory_names_what_the_shared_memory_needs() {
    let Some(net) = Net::new() else { return };
    let mut child = child::start("little-memory-in-place", &net.near);
    let text = child::line(&mut child);
    assert!(child.wait().unwrap().success());
    let start = format!(
        "queue 0 of {}: cannot lock 65792 KiB of memory for the frames (65536 of them to send from \
         in place)",
        net.near
    );
    assert!(text.starts_with(&start), "{text}");
    for part in ["is 1024 KiB", "ulimit -l", "CAP_IPC_LOCK", "none in place"] {
        assert!(text.contains(part), "{text}");
    }
}

/// In the child: enough for the frames, not for the memory.
pub(crate) fn refusal(config: &PortConfig) -> String {
    let (_file, memory) = memory(64 << 20);
    let config = PortConfig {
        frames: 64,
        ..config.clone()
    };
    let port = Port::open_sharing(&config, Source::OwnProgram, Some(&memory));
    port.unwrap_err().to_string()
}

#[test]
fn metadata_has_no_room_before_what_stays_where_it_is() {
    let Some(net) = Net::new() else { return };
    let (_file, memory) = memory(1 << 20);
    let mut config = PortConfig {
        frames: 64,
        tx_metadata: TxMetadata::On,
        ..config(&net.near)
    };
    let open = |config: &PortConfig| Port::open_sharing(config, Source::OwnProgram, Some(&memory));
    let text = open(&config).unwrap_err().to_string();
    assert!(
        text.contains("TX metadata is asked for (tx-metadata=on), and so is sending in place"),
        "{text}"
    );
    config.tx_metadata = TxMetadata::Auto;
    let queue = open(&config).unwrap().take_queues().remove(0);
    assert!(queue.sends_in_place() && !queue.completes_checksums());
}
