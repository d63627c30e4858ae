//! Where the guest's output goes on the host.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FileType, SeekFrom, fstat, seek},
    io::ioctl_fionread,
};

use super::timespec;

/// How long a write waits for a reader at most.
const WAIT: Duration = Duration::from_millis(100);

/// Bytes that are moved at once when a file is cut.
const PIECE: usize = 64 << 10;

/// How far to look for the beginning of a line where a file is cut.
const LONGEST_LINE: usize = 4096;

/// A place for output.
#[derive(Debug)]
pub(crate) enum Place {
    /// What is open already; a pipe, a terminal, a socket: somebody reads it, or not.
    Stream {
        /// It.
        fd: OwnedFd,
        /// It is a pipe.
        pipe: bool,
    },
    /// A regular file.
    File(LimitedFile),
}

impl Place {
    /// What is open already.
    pub(crate) fn stream(fd: OwnedFd) -> Self {
        let mode = fstat(&fd).map(|found| found.st_mode);
        let pipe = mode.is_ok_and(|mode| FileType::from_raw_mode(mode) == FileType::Fifo);
        Self::Stream { fd, pipe }
    }

    /// Opens and empties a file for output, or makes it. A regular file never gets longer than `limit` bytes.
    ///
    /// # Errors
    /// The system's; ENXIO: it is a pipe that nobody reads.
    pub(crate) fn create(path: &Path, limit: Option<u64>) -> io::Result<Self> {
        // A pipe without a reader would be waited for, and no signal would end that.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let mut options = OpenOptions::new();
        options.append(true).create(true).custom_flags(flags);
        let file = options.open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Ok(Self::stream(file.into()));
        }
        file.set_len(0)?;
        let whole = match limit {
            None => None,
            Some(_) => {
                let mut options = OpenOptions::new();
                let whole = options.read(true).write(true).open(path)?;
                let again = whole.metadata()?;
                if (again.dev(), again.ino()) != (found.dev(), found.ino()) {
                    return Err(io::Error::other("it was replaced just now"));
                }
                Some(whole)
            }
        };
        Ok(Self::File(LimitedFile {
            file,
            whole: whole.zip(limit),
            length: 0,
        }))
    }

    /// How many bytes wait in a pipe for its reader. There is room again only when he has read a whole page of
    /// them, so this tells one who is very slow from one who hangs.
    pub(super) fn unread(&self) -> Option<u64> {
        match self {
            Self::Stream { fd, pipe: true } => ioctl_fionread(fd).ok(),
            _ => None,
        }
    }

    /// Writes some of it. What waits for a reader waits for a tenth of a second, and then fails with
    /// [`io::ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// The system's.
    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream { fd, .. } => {
                let mut fds = [PollFd::new(fd, PollFlags::OUT)];
                if poll(&mut fds, Some(&timespec(WAIT)))? == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(rustix::io::write(fd, data)?)
            }
            Self::File(file) => file.write(data),
        }
    }
}

/// A regular file with the newest output of the guest's: when it would become longer than its limit, it is cut to
/// the newer half, from the beginning of a line on.
///
/// All of it is done to one file that is open: a confined process can open and rename none. A process
/// that is killed in the middle of it leaves the newer half, and behind that what was there before.
#[derive(Debug)]
pub(crate) struct LimitedFile {
    /// Writes at the end, also when somebody else has shortened it.
    file: File,
    /// The same, anywhere, and the limit in bytes.
    whole: Option<(File, u64)>,
    /// Its length, unless somebody else has changed that.
    length: u64,
}

impl LimitedFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let most = match &self.whole {
            None => data.len(),
            Some((whole, limit)) => {
                let more = data.len() as u64;
                if self.length.saturating_add(more) > *limit {
                    self.length = cut(whole, *limit, more)?;
                }
                let room = limit.saturating_sub(self.length);
                data.len().min(usize::try_from(room).unwrap_or(usize::MAX))
            }
        };
        let count = self.file.write(data.get(..most).unwrap_or(data))?;
        self.length = self.length.saturating_add(count as u64);
        Ok(count)
    }
}

/// Makes room for `more` bytes in a file that is to have `limit` at most; returns its length.
fn cut(file: &File, limit: u64, more: u64) -> io::Result<u64> {
    let length = seek(file.as_fd(), SeekFrom::End(0))?;
    if length.saturating_add(more) <= limit {
        // Somebody else has shortened it.
        return Ok(length);
    }
    let mut from = line_after(file, length.saturating_sub(limit / 2))?;
    let mut to = 0;
    let mut piece = vec![0; PIECE];
    loop {
        let count = file.read_at(&mut piece, from)?;
        if count == 0 {
            break;
        }
        file.write_all_at(piece.get(..count).unwrap_or_default(), to)?;
        from += count as u64;
        to += count as u64;
    }
    file.set_len(to)?;
    Ok(to)
}

/// Where the first line behind `position` begins; `position`, if there is none near.
fn line_after(file: &File, position: u64) -> io::Result<u64> {
    let mut text = [0; LONGEST_LINE];
    let count = file.read_at(&mut text, position)?;
    let text = text.get(..count).unwrap_or_default();
    let end = text.iter().position(|byte| *byte == b'\n');
    Ok(end.map_or(position, |end| position + end as u64 + 1))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use vmm_sys_util::tempfile::TempFile;

    use super::*;

    const LIMIT: u64 = 64 << 10;

    fn write_all(place: &mut Place, mut data: &[u8]) {
        while !data.is_empty() {
            let count = place.write(data).unwrap();
            data = &data[count..];
        }
    }

    fn line(number: u32) -> String {
        format!("this is line {number}\n")
    }

    #[test]
    fn a_file_keeps_the_newest_half_of_its_limit_at_least() {
        let file = TempFile::new().unwrap();
        fs::write(file.as_path(), "what was there before").unwrap();
        let mut place = Place::create(file.as_path(), Some(LIMIT)).unwrap();
        let mut all = String::new();
        let mut cut = 0;
        let mut length = 0;
        for number in 0..20_000 {
            write_all(&mut place, line(number).as_bytes());
            all.push_str(&line(number));
            let now = fs::metadata(file.as_path()).unwrap().len();
            assert!(now <= LIMIT);
            if now < length {
                cut += 1;
                let text = fs::read_to_string(file.as_path()).unwrap();
                assert!(all.ends_with(&text), "the newest, in order");
                assert!(text.starts_with("this is line "), "whole lines");
                assert!(now + 100 > LIMIT / 2, "{now}");
            }
            length = now;
        }
        assert!(cut > 5);
    }

    #[test]
    fn a_file_without_lines_is_cut_as_well() {
        let file = TempFile::new().unwrap();
        let mut place = Place::create(file.as_path(), Some(LIMIT)).unwrap();
        for _ in 0..100 {
            write_all(&mut place, &[b'x'; 4096]);
        }
        let length = fs::metadata(file.as_path()).unwrap().len();
        assert!((LIMIT / 2..=LIMIT).contains(&length), "{length}");
    }

    #[test]
    fn a_file_that_somebody_else_empties_goes_on_at_its_start() {
        let file = TempFile::new().unwrap();
        let mut place = Place::create(file.as_path(), Some(LIMIT)).unwrap();
        write_all(&mut place, &[b'x'; 60 << 10]);
        fs::write(file.as_path(), "").unwrap();
        write_all(&mut place, &[b'y'; 8 << 10]);
        assert_eq!(fs::read(file.as_path()).unwrap(), vec![b'y'; 8 << 10]);
    }

    #[test]
    fn without_a_limit_there_is_none() {
        let file = TempFile::new().unwrap();
        let mut place = Place::create(file.as_path(), None).unwrap();
        for _ in 0..100 {
            write_all(&mut place, &[b'x'; 4096]);
        }
        assert_eq!(fs::metadata(file.as_path()).unwrap().len(), 409_600);
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_an_error_and_not_waited_for() {
        let file = TempFile::new().unwrap();
        let path = file.as_path().with_extension("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
        let refused = Place::create(&path, Some(LIMIT)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENXIO));
        let reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let mut place = Place::create(&path, Some(LIMIT)).unwrap();
        let full = std::iter::repeat_with(|| place.write(&[b'x'; 4096])).find(Result::is_err);
        let error = full.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "no limit");
        drop(reader);
        let error = place.write(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        fs::remove_file(path).unwrap();
    }
}
