//! What the kernel's netdev family says about an interface (generic netlink;
//! Documentation/netlink/specs/netdev.yaml).

use std::io;

use crate::genl;

/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX` and `NETDEV_A_DEV_XSK_FEATURES` (linux/netdev.h).
const DEV_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XSK_FEATURES: u16 = 6;

/// `NETDEV_XSK_FLAGS_TX_CHECKSUM`.
const TX_CHECKSUM: u64 = 1 << 1;

/// Whether the driver completes checksums that TX metadata asks for. False also if the kernel does not say,
/// before 6.8.
///
/// # Errors
/// The system's: `ENOENT` if the kernel has no such family (before 6.3), `ENODEV` if there is no such interface.
pub(crate) fn completes_checksums(ifindex: u32) -> io::Result<bool> {
    let device = genl::ask("netdev", DEV_GET, (IFINDEX, &ifindex.to_ne_bytes()))?;
    let features = genl::value(&device, XSK_FEATURES).map(u64::from_ne_bytes);
    Ok(features.unwrap_or(0) & TX_CHECKSUM != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multi_buffer;

    #[test]
    fn loopback_completes_nothing_and_what_is_not_there_is_an_error() {
        let lo = crate::Interface::by_name("lo").unwrap();
        if multi_buffer::version() < Some((6, 3)) {
            assert!(completes_checksums(lo.index()).is_err());
            return;
        }
        assert!(!completes_checksums(lo.index()).unwrap());
        let error = completes_checksums(0x7fff_ffff).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
