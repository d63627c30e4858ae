//! What comes to the far end, looked at as it comes: tcpdump's packets, in the format of pcap-savefile(5).

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sums::Sums;
use crate::{Background, Wire};

/// Bytes before the first packet, and before each.
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
/// In the byte order of the machine, with microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;
/// No packet is longer.
const LONGEST: usize = 262_144;

/// tcpdump at the far end, and a thread that checks every packet and keeps none.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Background,
    reader: JoinHandle<io::Result<()>>,
    sums: Arc<Mutex<Sums>>,
}

impl Capture {
    /// Of what arrives at [`Wire::PEER_IFNAME`]. Packets are seen from when [`sums`](Self::sums) tells of some.
    #[must_use]
    pub fn start(wire: &Wire) -> Self {
        let mut tcpdump = wire.far_background(&format!(
            "tcpdump -Z root -B 16384 -i {} -Q in -U -w -",
            Wire::PEER_IFNAME
        ));
        let output = tcpdump.take_output();
        let sums = Arc::new(Mutex::new(Sums::default()));
        let shared = Arc::clone(&sums);
        let reader = thread::spawn(move || {
            read(io::BufReader::new(output), |packet| {
                let mut sums = shared.lock().unwrap_or_else(PoisonError::into_inner);
                sums.look_at(packet);
            })
        });
        Self {
            tcpdump,
            reader,
            sums,
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let sums = self.sums.lock();
        sums.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it, and tells what was seen.
    ///
    /// # Panics
    /// When tcpdump or its output is not as it should be.
    #[must_use]
    pub fn finish(self) -> Sums {
        self.tcpdump.interrupt();
        let _ = self.tcpdump.finish(Duration::from_secs(60));
        let read = self.reader.join().expect("the reader does not panic");
        read.expect("tcpdump writes whole packets");
        let sums = self.sums.lock();
        sums.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Shows every packet of a file.
fn read(mut file: impl Read, mut show: impl FnMut(&[u8])) -> io::Result<()> {
    let mut header = [0; FILE_HEADER];
    file.read_exact(&mut header)?;
    if header[..4] != MAGIC.to_ne_bytes() {
        return Err(io::Error::other("this is no pcap file"));
    }
    let mut packet = Vec::new();
    loop {
        let mut header = [0; PACKET_HEADER];
        // The file ends between two packets.
        if file.read(&mut header[..1])? == 0 {
            return Ok(());
        }
        file.read_exact(&mut header[1..])?;
        let [.., a, b, c, d, _, _, _, _] = header;
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(io::Error::other("a packet that is too long"));
        }
        packet.resize(length, 0);
        file.read_exact(&mut packet)?;
        show(&packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_in_the_file() {
        let mut file = MAGIC.to_ne_bytes().to_vec();
        file.resize(FILE_HEADER, 0);
        for packet in [&b"one"[..], b"another"] {
            file.extend([0; 8]);
            let length = u32::try_from(packet.len()).unwrap();
            file.extend(length.to_ne_bytes());
            file.extend(length.to_ne_bytes());
            file.extend(packet);
        }
        let mut packets = Vec::new();
        read(&file[..], |packet| packets.push(packet.to_vec())).unwrap();
        assert_eq!(packets, [&b"one"[..], b"another"]);
        file.pop();
        assert!(read(&file[..], |_| {}).is_err());
        assert!(read(&[0; 100][..], |_| {}).is_err());
    }
}
