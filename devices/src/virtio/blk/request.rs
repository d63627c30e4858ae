//! One request of a virtio-blk driver (virtio 1.2, section 5.2.6), from chain to status byte.

use std::{io, sync::Arc};

use super::{
    image::Image,
    serial::Serial,
    wire::{
        HEADER_LEN, Header, SECTOR, SEGMENT_LEN, STATUS_LEN, Segment, Status, T_DISCARD, T_FLUSH,
        T_GET_ID, T_IN, T_OUT, T_WRITE_ZEROES, UNMAP,
    },
};
use crate::{
    threads::ThreadKind,
    virtio::{
        queue::{Chain, QueueFault, Reader, Writer},
        quiet::Quiet,
        requests::{RequestError, RequestHandler},
        worker::StopSignal,
    },
};

/// Most bytes of one system call. A request may be as long as the guest's memory; between two
/// calls a stop is seen.
const CHUNK: usize = 4 << 20;
/// Most sectors that one DISCARD or WRITE_ZEROES may cover (1 GiB): a file system can take long
/// over a range.
pub(super) const MAX_RANGE: u32 = 1 << 21;

/// The disk as the device's thread sees it.
pub(super) struct Disk {
    pub(super) name: String,
    pub(super) image: Arc<Image>,
    pub(super) serial: Serial,
    /// The driver did not take FLUSH, so each write is durable when it completes (5.2.6.2).
    pub(super) write_through: bool,
    /// Host I/O errors over all resets.
    pub(super) errors: Arc<Quiet>,
}

/// What became of a request: its status, and how many data bytes were written to the guest.
type Outcome = (Status, u32);

impl RequestHandler for Disk {
    const KIND: ThreadKind = ThreadKind::Blk;

    /// Header and status may be split over buffers at any byte (2.7.4.1); what follows the header
    /// is data out, what precedes the last writable byte is data in.
    fn handle(&mut self, chain: &Chain, stop: &StopSignal) -> Result<u32, RequestError> {
        // Without a byte for the status there is no way to say that nothing was done.
        let data_in = chain.writable_len().checked_sub(STATUS_LEN);
        let data_in = data_in.ok_or(QueueFault::Direction(chain.head()))?;
        let mut from = chain.reader();
        let (status, written) = match from.read_array::<HEADER_LEN>() {
            Some(header) => {
                let request = Request {
                    header: Header::parse(header),
                    from,
                    to: chain.writer(),
                    data_in,
                    stop,
                };
                self.execute(request)?
            }
            None => (Status::IoError, 0),
        };
        let mut last = chain.writer();
        last.skip(data_in as usize);
        last.write(&[status as u8]);
        // 2.7.8.2: counted from the start, so the status counts only if all before it was written.
        Ok(written + if written == data_in { STATUS_LEN } else { 0 })
    }
}

struct Request<'a> {
    header: Header,
    /// After the header.
    from: Reader<'a>,
    to: Writer<'a>,
    /// Bytes of `to` before the status.
    data_in: u32,
    stop: &'a StopSignal,
}

impl Disk {
    fn execute(&self, request: Request<'_>) -> Result<Outcome, RequestError> {
        Ok(match request.header.kind {
            T_IN => self.read(request)?,
            T_OUT => (self.write(request)?, 0),
            T_FLUSH => (self.done("flush", 0, self.image.sync()), 0),
            T_GET_ID => self.get_id(request),
            T_DISCARD if self.image.discards() => (self.discard(request), 0),
            T_WRITE_ZEROES if self.image.zeroes() => (self.write_zeroes(request), 0),
            _ => (Status::Unsupported, 0),
        })
    }

    fn read(&self, mut request: Request<'_>) -> Result<Outcome, RequestError> {
        let len = request.data_in as usize;
        let Some(start) = self.image.range(request.header.sector, len as u64) else {
            return Ok((Status::IoError, 0));
        };
        let to = &mut request.to;
        let (result, done) = transfer(len, request.stop, |done, limit| {
            self.image.read_at(start + done, to, limit)
        })?;
        // Not more than `data_in`.
        let written = u32::try_from(done).unwrap_or(request.data_in);
        Ok((self.done("read", start, result), written))
    }

    fn write(&self, mut request: Request<'_>) -> Result<Status, RequestError> {
        let len = request.from.remaining();
        let range = self.image.range(request.header.sector, len as u64);
        let Some(start) = range.filter(|_| !self.image.is_read_only()) else {
            return Ok(Status::IoError);
        };
        let from = &mut request.from;
        let (result, _) = transfer(len, request.stop, |done, limit| {
            self.image.write_at(start + done, from, limit)
        })?;
        let result = result.and_then(|()| self.settle());
        Ok(self.done("write", start, result))
    }

    /// After a change: durable at once if the driver has no other way to make it so.
    fn settle(&self) -> io::Result<()> {
        if self.write_through {
            self.image.sync()?;
        }
        Ok(())
    }

    fn get_id(&self, mut request: Request<'_>) -> Outcome {
        let id = self.serial.as_bytes();
        let (id, _) = id.split_at(id.len().min(request.data_in as usize));
        let written = request.to.write(id);
        (Status::Ok, u32::try_from(written).unwrap_or(0))
    }

    /// 5.2.6.2: no flag is defined for DISCARD, UNMAP is refused as well.
    fn discard(&self, request: Request<'_>) -> Status {
        self.on_range(request, 0, |_, offset, len| {
            self.image.punch_hole(offset, len)
        })
    }

    /// 5.2.6.2: only with UNMAP may the space go.
    fn write_zeroes(&self, request: Request<'_>) -> Status {
        self.on_range(request, UNMAP, |flags, offset, len| {
            if flags & UNMAP != 0 {
                self.image.punch_hole(offset, len)
            } else {
                self.image.zero_range(offset, len)
            }
        })
    }

    fn on_range(
        &self,
        mut request: Request<'_>,
        known_flags: u32,
        change: impl FnOnce(u32, u64, u64) -> io::Result<()>,
    ) -> Status {
        // One segment, as the configuration says.
        let segment = request.from.read_array::<SEGMENT_LEN>();
        let Some(segment) = segment.filter(|_| request.from.remaining() == 0) else {
            return Status::IoError;
        };
        let Segment {
            sector,
            sectors,
            flags,
        } = Segment::parse(segment);
        if flags & !known_flags != 0 {
            return Status::Unsupported;
        }
        let len = u64::from(sectors) * SECTOR;
        let range = self.image.range(sector, len);
        let Some(start) = range.filter(|_| sectors <= MAX_RANGE) else {
            return Status::IoError;
        };
        let result = change(flags, start, len).and_then(|()| self.settle());
        self.done("zero", start, result)
    }

    fn done(&self, what: &str, offset: u64, result: io::Result<()>) -> Status {
        let Err(error) = result else {
            return Status::Ok;
        };
        if let Some(number) = self.errors.count() {
            let name = &self.name;
            tracing::warn!("{name}: {what} at byte {offset} failed (error {number}): {error}");
        }
        Status::IoError
    }
}

/// Moves `len` bytes in steps, each of which does at least one and at most as many as it is told;
/// returns how many were moved.
///
/// # Errors
/// The thread is to stop, and the request has more to do than that can wait for.
fn transfer(
    len: usize,
    stop: &StopSignal,
    mut step: impl FnMut(u64, usize) -> io::Result<usize>,
) -> Result<(io::Result<()>, usize), RequestError> {
    let mut done = 0;
    while done < len {
        // A short request is finished; the rest of a very long one is not worth the wait.
        if done >= CHUNK && stop.is_raised() {
            return Err(RequestError::Stopped);
        }
        match step(done as u64, (len - done).min(CHUNK)) {
            Ok(count) => done += count,
            Err(error) => return Ok((Err(error), done)),
        }
    }
    Ok((Ok(()), done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_very_long_request_is_given_up_at_a_stop() {
        let stop = StopSignal::new().unwrap();
        let mut moved = 0;
        let mut run = |len| {
            moved = 0;
            let end = transfer(len, &stop, |_, limit| {
                moved += limit;
                Ok(limit)
            });
            (end.map(|(result, done)| (result.is_ok(), done)), moved)
        };
        assert!(matches!(run(3 * CHUNK), (Ok((true, done)), _) if done == 3 * CHUNK));
        stop.raise();
        assert!(matches!(run(CHUNK), (Ok((true, CHUNK)), _)));
        let stopped = run(CHUNK + 1);
        assert!(matches!(stopped, (Err(RequestError::Stopped), CHUNK)));
    }

    #[test]
    fn short_steps_are_continued_and_errors_end_it() {
        let stop = StopSignal::new().unwrap();
        let mut steps = Vec::new();
        let (result, done) = transfer(10, &stop, |done, limit| {
            steps.push((done, limit));
            Ok(limit.min(4))
        })
        .unwrap();
        assert!(result.is_ok());
        assert_eq!((done, steps), (10, vec![(0, 10), (4, 6), (8, 2)]));
        let (result, done) = transfer(10, &stop, |done, _| match done {
            0 => Ok(7),
            _ => Err(io::ErrorKind::StorageFull.into()),
        })
        .unwrap();
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(done, 7);
    }
}
