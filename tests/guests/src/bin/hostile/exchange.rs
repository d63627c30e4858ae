//! The proof that the card works: frames go to the far end and come back.

use guest::{
    frame::{self, Check},
    memory::Region,
    net::{HEADER, Pair},
    ring::NEXT,
};

use crate::rig::{BUFFER, Rig};

/// Bytes of the frames: the shortest, the longest, and one of no power of two.
const SIZES: [usize; 3] = [60, 1514, 571];
const BROADCAST: [u8; 6] = [0xff; 6];
/// Descriptors that no attack leaves anything in while the queue goes on.
const HEAD: u16 = 250;
const TAIL: u16 = 251;

impl Rig {
    /// Sends a frame of each size, and waits until it is back with every byte as it was.
    pub(crate) fn exchange(&mut self) {
        for size in SIZES {
            let number = self.new_frame(size);
            self.there_and_back(number, size, None, self.options.retry);
        }
    }

    /// After a flood that the wire may have been too slow for: sends a frame again and again until it is back, so that
    /// nothing is lost that comes after it.
    pub(crate) fn calm_down(&mut self) {
        let number = self.new_frame(60);
        let retry = self.options.kilohertz.saturating_mul(100);
        self.there_and_back(number, 60, None, Some(retry));
    }

    /// The same with one frame, whose header and frame are in two buffers, cut at `cut`.
    pub(crate) fn exchange_cut(&mut self, size: usize, cut: usize) {
        let number = self.new_frame(size);
        self.there_and_back(number, size, Some(cut), self.options.retry);
    }

    /// Sends a frame that will come back, and does not wait for that; its number.
    pub(crate) fn send_one(&mut self, size: usize) -> u64 {
        let number = self.new_frame(size);
        self.post_frame(size, None);
        self.wait_sent();
        number
    }

    /// Sends frames, so that some come back, until the device asks for a reset.
    pub(crate) fn provoke_until_broken(&mut self) {
        let mut watch = self.watch();
        let pause = self.options.kilohertz.saturating_mul(50);
        while !self.is_broken() {
            self.send_one(60);
            let sent = self.watch();
            while !self.is_broken() && sent.elapsed() < pause {
                watch.turn(
                    self,
                    "a frame came, and the device does not ask for a reset",
                );
            }
        }
    }

    /// Writes the next frame; its number.
    fn new_frame(&mut self, size: usize) -> u64 {
        let number = self.next;
        self.next += 1;
        self.send.fill(0, HEADER, 0);
        frame::write(&self.send, HEADER, size, BROADCAST, self.mac);
        frame::set_number(&self.send, HEADER, number);
        number
    }

    fn post_frame(&mut self, size: usize, cut: Option<usize>) {
        let (address, len) = (self.send.address(), HEADER + size);
        let tx = &self.first.tx;
        match cut {
            None => tx.describe(HEAD, address, length(len), false),
            Some(cut) => {
                tx.set_descriptor(HEAD, address, length(cut), NEXT, TAIL);
                tx.set_descriptor(TAIL, address + cut as u64, length(len - cut), 0, 0);
            }
        }
        self.offer(HEAD);
    }

    /// Sends the frame that was just made until it is back; again after so many cycles, if that is allowed.
    fn there_and_back(&mut self, number: u64, size: usize, cut: Option<usize>, retry: Option<u64>) {
        let mut watch = self.watch();
        loop {
            self.post_frame(size, cut);
            self.wait_sent();
            let sent = self.watch();
            loop {
                if self.has_come(number, size) {
                    return;
                }
                watch.turn(self, "a frame does not come back");
                if retry.is_some_and(|cycles| sent.elapsed() > cycles) {
                    break;
                }
            }
        }
    }

    /// Looks at all that came; whether that frame is among it.
    fn has_come(&mut self, number: u64, size: usize) -> bool {
        let mut good = true;
        let mut found = false;
        let pairs = [Some(&mut self.first), self.second.as_mut()];
        for (pair, memory) in pairs.into_iter().flatten().zip(self.receive) {
            while let Some((came, len)) = take(pair, &memory) {
                match came {
                    Check::Good(it) => found |= it == number && len == size,
                    Check::Bad => good = false,
                    Check::Other => {}
                }
            }
            pair.rx.publish();
        }
        if !good {
            self.fail("a frame came back with a wrong byte");
        }
        found
    }
}

/// Takes a frame that was received, and gives its buffer back.
fn take(pair: &mut Pair, memory: &Region) -> Option<(Check, usize)> {
    let (id, len) = pair.rx.take()?;
    let len = usize::try_from(len).unwrap_or(0).min(BUFFER);
    let len = len.saturating_sub(HEADER);
    let at = usize::from(id) * BUFFER + HEADER;
    // One that was sent before, and comes late, may have another length.
    let came = match frame::check(memory, at, len, len) {
        // Attacks send pieces of the frames before them.
        Check::Bad if frame::is_padded(memory, at, len) => Check::Other,
        came => came,
    };
    pair.rx.post(id);
    Some((came, len))
}

/// A length of ours as the ring has it: far below the limit.
pub(crate) fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
