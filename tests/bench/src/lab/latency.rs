//! Request and response over TCP, one byte each way.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// A guest in an emulated host may be slow.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the guest echoes: the port that has that name (RFC 862).
pub(super) const PORT: u16 = 7;

/// Asks for `time`; the microseconds that `percent` of the answers did not exceed.
pub(super) fn measure(address: &str, time: Duration, percent: usize) -> io::Result<f64> {
    let mut stream = TcpStream::connect((address, PORT))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let asked = Instant::now();
        let mut byte = [0x55];
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        answers.push(asked.elapsed());
    }
    percentile(answers, percent)
        .map(|it| it.as_secs_f64() * 1e6)
        .ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn percentile(mut answers: Vec<Duration>, percent: usize) -> Option<Duration> {
    answers.sort_unstable();
    let last = answers.len().checked_sub(1)?;
    answers.get(last * percent / 100).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_answers() {
        let answers: Vec<_> = (0..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(
            percentile(answers.clone(), 50),
            Some(Duration::from_micros(50))
        );
        assert_eq!(percentile(answers, 99), Some(Duration::from_micros(99)));
        assert_eq!(percentile(Vec::new(), 50), None);
    }
}
