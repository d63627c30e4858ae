//! The descriptors that a command has inherited from `ringwire open`.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    process::Command,
};

use rustix::{
    fs::{OFlags, fcntl_getfl},
    net::{AddressFamily, sockopt::socket_domain},
};

/// In the command's environment: the file descriptors that it inherits, such as `3:4:5`, for a command that closes
/// those that it does not know ([`crate::jail`]).
const VARIABLE: &str = "RINGWIRE_OPEN_FDS";

/// Tells the command which descriptors are for it.
pub(super) fn tell(command: &mut Command, descriptors: &[RawFd]) {
    let numbers: Vec<_> = descriptors.iter().map(ToString::to_string).collect();
    command.env(VARIABLE, numbers.join(":"));
}

/// The file descriptors that this process has inherited from [`open`](super::open), if any; they are closed on exec from
/// now on.
///
/// An environment outlives the descriptors that it tells of, and the numbers may be others' by then. So what `open`
/// would not have made is not among them, and the log says so.
pub(crate) fn inherited() -> Vec<RawFd> {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    let numbers = text.split(':').filter_map(|it| it.parse().ok());
    numbers.filter(|number| is_of_open(*number)).collect()
}

fn is_of_open(number: RawFd) -> bool {
    // The standard ones are everybody's, and one that is not open needs no word.
    if number <= libc::STDERR_FILENO {
        return false;
    }
    let Ok(copy) = net_afxdp::inherited(number) else {
        return false;
    };
    let kind = kind(&copy);
    let is = match kind.as_deref() {
        Ok("anon_inode:bpf_link" | "anon_inode:bpf-map") => true,
        Ok(kind) if kind.starts_with("socket:") => socket_domain(&copy) == Ok(AddressFamily::XDP),
        // What keeps the interfaces promiscuous: its end for writing.
        Ok(kind) if kind.starts_with("pipe:") => {
            fcntl_getfl(&copy).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::WRONLY)
        }
        _ => false,
    };
    if !is {
        let kind = kind.unwrap_or_else(|error| error.to_string());
        tracing::warn!(
            "{VARIABLE} names the descriptor {number}, which `ringwire open` has not made ({kind}): it is closed"
        );
    }
    is
}

/// As proc(5) has it.
fn kind(descriptor: &OwnedFd) -> io::Result<String> {
    let kind = fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))?;
    Ok(kind.to_string_lossy().into_owned())
}
