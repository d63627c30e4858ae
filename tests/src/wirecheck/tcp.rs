//! A TCP stream in one direction. The receiver answers with the amount when the sender has closed its half.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{CheckError, pattern};

/// Longer than any pause that a busy emulated host makes; then the wire counts as dead.
const SILENCE: Duration = Duration::from_secs(100);
const BLOCK: usize = 64 * 1024;

/// Sends `amount` bytes of the stream of `seed` to `to`, or what can be sent in `time`, and waits for the receiver's
/// verdict. Returns the amount sent.
///
/// # Errors
/// [`CheckError::Io`] when the connection fails or is silent for 100 s, [`CheckError::Count`] when the receiver got
/// another amount or found wrong bytes.
pub fn send(
    to: SocketAddr,
    seed: u64,
    amount: u64,
    time: Option<Duration>,
) -> Result<u64, CheckError> {
    let mut stream = TcpStream::connect_timeout(&to, SILENCE)
        .map_err(CheckError::io(format!("connecting to {to}")))?;
    limit(&stream)?;
    let mut block = vec![0; BLOCK];
    let mut sent = 0;
    let start = Instant::now();
    while sent < amount && time.is_none_or(|it| start.elapsed() < it) {
        let left = usize::try_from(amount - sent).unwrap_or(BLOCK).min(BLOCK);
        let part = &mut block[..left];
        pattern::fill(seed, sent, part);
        stream
            .write_all(part)
            .map_err(CheckError::io(format!("sending after {sent} bytes")))?;
        sent += left as u64;
    }
    stream
        .shutdown(Shutdown::Write)
        .map_err(CheckError::io("closing the sending half"))?;
    let mut verdict = String::new();
    stream
        .read_to_string(&mut verdict)
        .map_err(CheckError::io("waiting for the receiver's verdict"))?;
    if verdict == format!("ok {sent}") {
        Ok(sent)
    } else {
        Err(CheckError::Count(format!(
            "sent {sent} bytes, the receiver says '{verdict}'"
        )))
    }
}

/// Takes one connection from `listener`, checks every byte against the stream of `seed`, and tells the sender.
///
/// Returns the amount received.
///
/// # Errors
/// [`CheckError::Io`] when the connection fails or is silent for 100 s, [`CheckError::Content`] at the first wrong byte.
pub fn receive(listener: &TcpListener, seed: u64) -> Result<u64, CheckError> {
    let (mut stream, _) = listener
        .accept()
        .map_err(CheckError::io("accepting a connection"))?;
    limit(&stream)?;
    let mut block = vec![0; BLOCK];
    let mut received = 0;
    loop {
        let length = stream
            .read(&mut block)
            .map_err(CheckError::io(format!("receiving after {received} bytes")))?;
        if length == 0 {
            break;
        }
        if let Some(at) = pattern::first_difference(seed, received, &block[..length]) {
            let text = format!("byte {} of the TCP stream", received + at as u64);
            // The sender hears of it if the connection still works; the error here is what counts.
            let _ = write!(stream, "{text}");
            return Err(CheckError::Content(text));
        }
        received += length as u64;
    }
    write!(stream, "ok {received}").map_err(CheckError::io("sending the verdict"))?;
    Ok(received)
}

fn limit(stream: &TcpStream) -> Result<(), CheckError> {
    stream
        .set_read_timeout(Some(SILENCE))
        .and_then(|()| stream.set_write_timeout(Some(SILENCE)))
        .map_err(CheckError::io("setting the time limits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn pair(
        send_seed: u64,
        receive_seed: u64,
        amount: u64,
    ) -> (Result<u64, CheckError>, Result<u64, CheckError>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let sender = thread::spawn(move || send(to, send_seed, amount, None));
        let received = receive(&listener, receive_seed);
        (sender.join().unwrap(), received)
    }

    #[test]
    fn both_ends_agree_on_a_clean_stream() {
        let (sent, received) = pair(3, 3, 1_000_001);
        assert_eq!(sent.unwrap(), 1_000_001);
        assert_eq!(received.unwrap(), 1_000_001);
    }

    #[test]
    fn a_stream_ends_when_its_time_is_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let time = Some(Duration::from_millis(50));
        let sender = thread::spawn(move || send(to, 7, u64::MAX, time));
        let received = receive(&listener, 7).unwrap();
        assert_eq!(sender.join().unwrap().unwrap(), received);
        assert!(received > 0);
    }

    #[test]
    fn wrong_bytes_fail_at_both_ends() {
        let (sent, received) = pair(3, 4, 1000);
        assert!(sent.is_err());
        assert!(
            matches!(received, Err(CheckError::Content(_))),
            "{received:?}"
        );
    }
}
