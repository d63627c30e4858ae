//! Numbered UDP datagrams of many sizes in one direction. Loss is counted, wrong content is an error.
//!
//! A datagram is its number (8 bytes, big endian) and then bytes of the pattern; size and content follow from seed and
//! number, so that the receiver knows both. The end is a datagram with the highest number that holds the count; it is repeated
//! until the receiver answers with its [`Report`].

use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use super::{CheckError, pattern, segmentation};

/// The number of the datagram that tells the end.
const END: u64 = u64::MAX;
const NUMBER: usize = 8;
const LARGEST: usize = 65_507;
/// Then the wire counts as dead.
const SILENCE: Duration = Duration::from_secs(30);
/// The same for who receives: others may be started before the one that sends, on a host that is slow.
const LONG_SILENCE: Duration = Duration::from_secs(100);
/// Times that nobody may be there, until it is believed that nobody was.
const REFUSALS: u32 = 5;
const END_EVERY: Duration = Duration::from_millis(100);
/// Further datagrams that are late are waited for this long after the end.
const SETTLE: Duration = Duration::from_millis(500);

/// What is sent. Both ends need the same.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Seed of contents and sizes.
    pub seed: u64,
    /// The smallest UDP payload, in bytes; at least 8.
    pub smallest: usize,
    /// The largest UDP payload, in bytes; at most 65507.
    pub largest: usize,
}

impl Plan {
    fn size(&self, number: u64) -> usize {
        let smallest = self.smallest.clamp(NUMBER, LARGEST);
        let span = self.largest.clamp(smallest, LARGEST) - smallest + 1;
        smallest + usize::try_from(pattern::pick(self.seed, number, span as u64)).unwrap_or(0)
    }

    /// Writes datagram `number` into `buffer` and returns its size.
    fn write(&self, number: u64, buffer: &mut [u8]) -> usize {
        let size = self.size(number);
        buffer[..NUMBER].copy_from_slice(&number.to_be_bytes());
        pattern::fill(self.seed ^ number, 0, &mut buffer[NUMBER..size]);
        size
    }

    fn check(&self, number: u64, datagram: &[u8]) -> Result<(), CheckError> {
        if datagram.len() != self.size(number) {
            let (got, wanted) = (datagram.len(), self.size(number));
            return Err(CheckError::Content(format!(
                "datagram {number} has {got} bytes instead of {wanted}"
            )));
        }
        match pattern::first_difference(self.seed ^ number, 0, &datagram[NUMBER..]) {
            Some(at) => Err(CheckError::Content(format!(
                "byte {} of datagram {number}",
                at + NUMBER
            ))),
            None => Ok(()),
        }
    }
}

/// How fast datagrams are sent, and how many at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Datagrams between two pauses; 0: no pause.
    pub burst: u64,
    /// Length of the pause.
    pub gap: Duration,
    /// Datagrams in one call, which the kernel or the card cuts (UDP_SEGMENT); their sizes must be the same. At least 1.
    pub together: u64,
}

/// What the receiver saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Datagrams that the sender says it sent.
    pub sent: u64,
    /// Different datagrams that arrived with the right content.
    pub received: u64,
    /// Datagrams that arrived more than once, each further time counted.
    pub duplicates: u64,
    /// Datagrams that arrived after one with a higher number.
    pub reordered: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            received,
            duplicates,
            reordered,
        } = self;
        write!(
            f,
            "sent={sent} received={received} duplicates={duplicates} reordered={reordered}"
        )
    }
}

/// Sends `count` datagrams to `to` and returns the receiver's report.
///
/// # Errors
/// [`CheckError::Io`] when sending fails or no report comes for 30 s.
pub fn send(to: SocketAddr, plan: &Plan, count: u64, pace: Pace) -> Result<String, CheckError> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0; 16], 0).into()
    };
    let socket = UdpSocket::bind(any).map_err(CheckError::io("opening a UDP socket"))?;
    socket
        .connect(to)
        .map_err(CheckError::io(format!("connecting to {to}")))?;
    let together = pace.together.max(1);
    cut_into(&socket, plan, together)?;
    let mut buffer = vec![0; LARGEST];
    let mut number = 0;
    while number < count {
        let first = number;
        let mut size = 0;
        for _ in 0..together.min(count - first) {
            size += plan.write(number, &mut buffer[size..]);
            number += 1;
        }
        socket
            .send(&buffer[..size])
            .map_err(CheckError::io(format!("sending datagram {first}")))?;
        let bursts = |sent: u64| sent.checked_div(pace.burst);
        if bursts(number) != bursts(first) {
            thread::sleep(pace.gap);
        }
    }
    end(&socket, count)
}

/// Sets the socket up for several datagrams in one call. Those that tell the end are shorter than one of these.
fn cut_into(socket: &UdpSocket, plan: &Plan, together: u64) -> Result<(), CheckError> {
    if together == 1 {
        return Ok(());
    }
    let size = plan.size(0);
    let all = usize::try_from(together).unwrap_or(usize::MAX);
    let fits = plan.smallest == plan.largest && size >= 2 * NUMBER;
    match u16::try_from(size) {
        Ok(size) if fits && all.saturating_mul(size.into()) <= LARGEST => {
            segmentation::cut_into(socket, size).map_err(CheckError::io(format!(
                "sending {together} datagrams at once"
            )))
        }
        _ => Err(CheckError::Count(format!(
            "{together} datagrams at once must be of one size, from 16 bytes, and {LARGEST} bytes at most together"
        ))),
    }
}

fn end(socket: &UdpSocket, count: u64) -> Result<String, CheckError> {
    let mut message = END.to_be_bytes().to_vec();
    message.extend(count.to_be_bytes());
    let mut answer = [0; 256];
    let mut refusals = 0;
    socket
        .set_read_timeout(Some(END_EVERY))
        .map_err(CheckError::io("setting the time limit"))?;
    for _ in 0..SILENCE.as_millis() / END_EVERY.as_millis() {
        let result = socket.send(&message);
        match result.and_then(|_| socket.recv(&mut answer)) {
            Ok(length) => return Ok(String::from_utf8_lossy(&answer[..length]).into_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // That the receiver has gone is told before the report that it sent before.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && refusals < REFUSALS => {
                refusals += 1;
            }
            Err(source) => {
                return Err(CheckError::Io {
                    what: "telling the end and waiting for the report".into(),
                    source,
                });
            }
        }
    }
    Err(CheckError::Count("the receiver sent no report".into()))
}

/// Receives until the end is told, checks every byte, and reports to the sender.
///
/// # Errors
/// [`CheckError::Io`] when receiving fails or nothing comes for 100 s, [`CheckError::Content`] at the first wrong byte.
pub fn receive(socket: &UdpSocket, plan: &Plan) -> Result<Report, CheckError> {
    let mut report = Report::default();
    let mut seen = Vec::new();
    let mut highest = None;
    let mut sender = None;
    let mut buffer = vec![0; LARGEST];
    socket
        .set_read_timeout(Some(LONG_SILENCE))
        .map_err(CheckError::io("setting the time limit"))?;
    loop {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(got) => got,
            Err(error)
                if sender.is_some()
                    && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                break;
            }
            Err(source) => {
                return Err(CheckError::Io {
                    what: "receiving".into(),
                    source,
                });
            }
        };
        let datagram = &buffer[..length];
        let number = read_number(datagram, 0)?;
        if number == END {
            report.sent = read_number(datagram, NUMBER)?;
            if sender.replace(from).is_none() {
                socket
                    .set_read_timeout(Some(SETTLE))
                    .map_err(CheckError::io("setting the time limit"))?;
            } else {
                break;
            }
            continue;
        }
        plan.check(number, datagram)?;
        count(&mut report, &mut seen, &mut highest, number)?;
    }
    if let Some(sender) = sender {
        let text = report.to_string();
        socket
            .send_to(text.as_bytes(), sender)
            .map_err(CheckError::io("sending the report"))?;
        // The wire may lose one. The sender is gone when the first has reached it: errors mean nothing here.
        for _ in 0..2 {
            let _ = socket.send_to(text.as_bytes(), sender);
        }
    }
    Ok(report)
}

fn read_number(datagram: &[u8], at: usize) -> Result<u64, CheckError> {
    datagram
        .get(at..at + NUMBER)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| {
            CheckError::Content(format!(
                "a datagram of {} bytes, too short for its number",
                datagram.len()
            ))
        })
}

/// Counts datagram `number`; `seen` has one flag a number.
fn count(
    report: &mut Report,
    seen: &mut Vec<bool>,
    highest: &mut Option<u64>,
    number: u64,
) -> Result<(), CheckError> {
    // A wrong number must not make this program allocate without end.
    let index = usize::try_from(number)
        .ok()
        .filter(|&index| index < 1 << 28)
        .ok_or_else(|| CheckError::Content(format!("datagram number {number} was never sent")))?;
    if seen.len() <= index {
        seen.resize(index + 1, false);
    }
    if std::mem::replace(&mut seen[index], true) {
        report.duplicates += 1;
        return Ok(());
    }
    report.received += 1;
    report.reordered += u64::from(highest.is_some_and(|highest| number < highest));
    *highest = (*highest).max(Some(number));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        seed: 5,
        smallest: 8,
        largest: 1472,
    };

    #[test]
    fn all_arrive_and_are_right() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        // As many as the socket's buffer holds, so that none is lost however late this thread runs.
        let pace = Pace {
            burst: 10,
            gap: Duration::from_millis(1),
            together: 1,
        };
        let sender = thread::spawn(move || send(to, &PLAN, 60, pace));
        let report = receive(&socket, &PLAN).unwrap();
        assert_eq!(
            report,
            Report {
                sent: 60,
                received: 60,
                duplicates: 0,
                reordered: 0
            }
        );
        assert_eq!(sender.join().unwrap().unwrap(), report.to_string());
    }

    #[test]
    fn a_receiver_that_never_was_is_told() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        drop(socket);
        let pace = Pace {
            burst: 0,
            gap: Duration::ZERO,
            together: 1,
        };
        let refused = send(to, &PLAN, 0, pace).unwrap_err();
        assert!(refused.to_string().contains("refused"), "{refused}");
    }

    #[test]
    fn several_at_once_are_each_right() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let plan = Plan {
            seed: 6,
            smallest: 500,
            largest: 500,
        };
        let pace = Pace {
            burst: 0,
            gap: Duration::ZERO,
            together: 9,
        };
        // The last call has fewer.
        let sender = thread::spawn(move || send(to, &plan, 40, pace));
        let report = receive(&socket, &plan).unwrap();
        assert_eq!((report.sent, report.received), (40, 40));
        assert_eq!(sender.join().unwrap().unwrap(), report.to_string());
        assert!(send(to, &PLAN, 40, pace).is_err());
    }

    #[test]
    fn sizes_stay_in_bounds_and_vary() {
        let sizes: Vec<_> = (0..1000).map(|number| PLAN.size(number)).collect();
        assert!(sizes.iter().all(|size| (8..=1472).contains(size)));
        assert!(sizes.iter().any(|&size| size < 100) && sizes.iter().any(|&size| size > 1400));
    }

    #[test]
    fn wrong_content_and_wrong_size_are_errors() {
        let mut buffer = vec![0; LARGEST];
        let size = PLAN.write(9, &mut buffer);
        PLAN.check(9, &buffer[..size]).unwrap();
        assert!(PLAN.check(9, &buffer[..=size]).is_err());
        assert!(PLAN.check(10, &buffer[..size]).is_err());
        buffer[size - 1] ^= 0x80;
        assert!(PLAN.check(9, &buffer[..size]).is_err());
    }

    #[test]
    fn duplicates_and_disorder_are_counted() {
        let (mut report, mut seen, mut highest) = (Report::default(), Vec::new(), None);
        for number in [0, 2, 1, 1, 3] {
            count(&mut report, &mut seen, &mut highest, number).unwrap();
        }
        assert_eq!(
            report,
            Report {
                sent: 0,
                received: 4,
                duplicates: 1,
                reordered: 1
            }
        );
        assert!(count(&mut report, &mut seen, &mut highest, 1 << 40).is_err());
    }
}
