//! The far end of a wire: it checks every byte of a guest's frames and sends them back.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use net_afxdp::{Port, PortConfig, Queue};
use ringwire_tests::Wire;

/// The EtherType of frames that are to be sent back, and of all others that a guest sends (`tests/guests`).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const OTHER: [u8; 2] = [0x88, 0xb6];
/// The byte of which those consist.
const FILL: u8 = 0x5a;
/// Where a frame's number is, and its pattern: byte i of the frame is i modulo 256.
const NUMBER: usize = 14;
const PATTERN: usize = 22;
/// Bytes of a frame of a flood.
const FLOOD: usize = 60;

/// What is asked of a reflector, and what it says.
#[derive(Debug, Default)]
struct Orders {
    end: AtomicBool,
    pause: AtomicBool,
    flood: AtomicBool,
    /// Frames that were right in every byte.
    frames: AtomicU64,
    /// Frames of floods that were sent.
    flooded: AtomicU64,
    problem: Mutex<Option<String>>,
}

impl Orders {
    fn fail(&self, what: String) {
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        problem.get_or_insert(what);
    }
}

/// A thread that reflects. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Reflector {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

impl Reflector {
    /// Starts it at the far end of `wire`.
    pub(crate) fn start(wire: &Arc<Wire>) -> Self {
        let orders = Arc::new(Orders::default());
        let (wire, of_thread) = (Arc::clone(wire), Arc::clone(&orders));
        let thread = thread::spawn(move || {
            wire.enter(false);
            match open() {
                Ok((_port, queue)) => reflect(queue, &of_thread),
                Err(sentence) => of_thread.fail(sentence),
            }
        });
        Self {
            orders,
            thread: Some(thread),
        }
    }

    /// Ends it; what it counted stays.
    pub(crate) fn stop(&mut self) {
        self.orders.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            let _ = thread.join();
        }
    }

    /// How many frames it found right in every byte.
    pub(crate) fn frames(&self) -> u64 {
        self.orders.frames.load(Ordering::Relaxed)
    }

    /// How many frames it sent in floods.
    pub(crate) fn flooded(&self) -> u64 {
        self.orders.flooded.load(Ordering::Relaxed)
    }

    /// Has it take no frames, or go on.
    pub(crate) fn pause(&self, on: bool) {
        self.orders.pause.store(on, Ordering::Relaxed);
    }

    /// Has it send as much as it can, or end that.
    pub(crate) fn flood(&self, on: bool) {
        self.orders.flood.store(on, Ordering::Relaxed);
    }

    /// What is wrong, if anything is.
    pub(crate) fn problem(&self) -> Option<String> {
        let problem = self.orders.problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.stop();
    }
}

fn open() -> Result<(Port, Queue), String> {
    let mut port = Port::open(&PortConfig {
        ifname: Wire::PEER_IFNAME.to_owned(),
        ..PortConfig::default()
    })
    .map_err(|error| format!("the far end could not be opened: {error}"))?;
    let queue = port.take_queues().into_iter().next();
    let queue = queue.ok_or("the far end has no queue")?;
    Ok((port, queue))
}

fn reflect(mut queue: Queue, orders: &Orders) {
    let mut back: Vec<Vec<u8>> = Vec::new();
    while !orders.end.load(Ordering::Relaxed) {
        if orders.pause.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let taken = queue.receive(64, |fragments| {
            let mut frame = fragments.concat();
            match judge(&frame) {
                Ok(true) => {
                    orders.frames.fetch_add(1, Ordering::Relaxed);
                    let (to, from) = frame.split_at_mut(6);
                    to.swap_with_slice(&mut from[..6]);
                    back.push(frame);
                }
                Ok(false) => {}
                Err(what) => orders.fail(format!("{what}: {frame:02x?}")),
            }
            ControlFlow::Continue(())
        });
        for frame in back.drain(..) {
            // What there is no room for is lost, as on any wire; the guest sends it again.
            if queue.room() > 0 {
                let _ = queue.send(frame.len(), |bytes| bytes.copy_from_slice(&frame));
            }
        }
        let flood = orders.flood.load(Ordering::Relaxed);
        if flood {
            send_flood(&mut queue, orders);
        }
        // The link may be down, or the interface gone: that is what is tested.
        let _ = queue.flush();
        if taken == 0 && !flood {
            // CPUs are few, and guests poll.
            thread::sleep(Duration::from_micros(50));
        }
    }
}

fn send_flood(queue: &mut Queue, orders: &Orders) {
    for _ in 0..64 {
        if queue.room() == 0 {
            break;
        }
        let sent = queue.send(FLOOD, |bytes| {
            bytes.fill(FILL);
            bytes[..6].fill(0xff);
            bytes[12..14].copy_from_slice(&OTHER);
        });
        orders
            .flooded
            .fetch_add(u64::from(sent.is_ok()), Ordering::Relaxed);
    }
}

/// A frame as the guest gave it: zeros were put behind a short one, up to 60 bytes. No frame of 60 bytes that the guest
/// sends ends with one.
fn sent(frame: &[u8]) -> &[u8] {
    let last = frame.iter().rposition(|&byte| byte != 0);
    let end = match last {
        Some(last) if frame.len() == 60 => last.max(PATTERN) + 1,
        _ => frame.len(),
    };
    frame.get(..end).unwrap_or(frame)
}

/// Whether a frame is to be sent back; an error if a byte of it is not what a guest sends.
fn judge(frame: &[u8]) -> Result<bool, &'static str> {
    let frame = sent(frame);
    match frame.get(12..NUMBER) {
        Some(kind) if kind == ETHERTYPE => {
            let pattern = frame.iter().zip((0..=u8::MAX).cycle()).skip(PATTERN);
            let right = frame.len() > PATTERN && pattern.into_iter().all(|(&byte, it)| byte == it);
            right
                .then_some(true)
                .ok_or("a frame came with a wrong byte")
        }
        Some(kind) if kind == OTHER => {
            let right = frame.iter().skip(NUMBER).all(|&byte| byte == FILL);
            right
                .then_some(false)
                .ok_or("a frame came with bytes that no guest gave")
        }
        // Packets of TCP, and what the kernel sends.
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_judged() {
        let mut frame: Vec<u8> = (0..=255).cycle().take(571).collect();
        frame[12..14].copy_from_slice(&ETHERTYPE);
        assert_eq!(judge(&frame), Ok(true));
        for at in PATTERN..571 {
            frame[at] ^= 1;
            assert!(judge(&frame).is_err(), "{at}");
            frame[at] ^= 1;
        }
        let mut other = vec![FILL; 60];
        assert_eq!(judge(&other), Ok(false));
        other[12..14].copy_from_slice(&OTHER);
        assert_eq!(judge(&other), Ok(false));
        other[59] = 0;
        assert_eq!(judge(&other), Ok(false), "one that was shorter");
        other[58] = 1;
        assert!(judge(&other).is_err());
        assert_eq!(judge(&[0; 5]), Ok(false));
    }
}
