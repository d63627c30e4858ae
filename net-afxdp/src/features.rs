//! Offloads that ethtool's old commands do not know, by the names that `ethtool -K` takes (generic netlink;
//! Documentation/networking/ethtool-netlink.rst, "FEATURES_GET").

use std::io;

use crate::genl;

/// `ETHTOOL_MSG_FEATURES_GET`; `ETHTOOL_A_FEATURES_HEADER`, a nest, with `ETHTOOL_A_HEADER_DEV_INDEX` in it;
/// `ETHTOOL_A_FEATURES_ACTIVE` of the answer (linux/ethtool_netlink.h).
const FEATURES_GET: u8 = 11;
const HEADER: u16 = 1 | NESTED;
const DEV_INDEX: u16 = 1;
const ACTIVE: u16 = 4;
/// `NLA_F_NESTED`, which the kernel wants to see here.
const NESTED: u16 = 1 << 15;

/// `ETHTOOL_A_BITSET_BITS`, `ETHTOOL_A_BITSET_BITS_BIT` and `ETHTOOL_A_BITSET_BIT_NAME`.
const BITS: u16 = 3;
const BIT: u16 = 1;
const NAME: u16 = 2;

/// Names of all features that are on.
///
/// # Errors
/// The system's: `ENOENT` if the kernel was built without CONFIG_ETHTOOL_NETLINK.
pub(crate) fn active(ifindex: u32) -> io::Result<Vec<String>> {
    let device = genl::attribute(DEV_INDEX, &ifindex.to_ne_bytes());
    let answer = genl::ask("ethtool", FEATURES_GET, (HEADER, &device))?;
    let parts = |all: &[Vec<u8>], kind| -> Vec<Vec<u8>> {
        all.iter().flat_map(|it| genl::values(it, kind)).collect()
    };
    let active = genl::values(&answer, ACTIVE);
    let names = parts(&parts(&parts(&active, BITS), BIT), NAME);
    let text = |name: &Vec<u8>| {
        let name = name.strip_suffix(&[0]).unwrap_or(name);
        String::from_utf8_lossy(name).into_owned()
    };
    Ok(names.iter().map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_features_and_what_is_not_there_is_an_error() {
        let lo = crate::Interface::by_name("lo").unwrap();
        let Ok(names) = active(lo.index()) else {
            return; // No CONFIG_ETHTOOL_NETLINK.
        };
        assert!(names.iter().any(|it| it == "loopback"), "{names:?}");
        let error = active(0x7fff_ffff).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
