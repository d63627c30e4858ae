//! What the kernel's Wi-Fi says about an interface (generic netlink, linux/nl80211.h).

use std::path::Path;

use crate::genl;

/// `NL80211_CMD_GET_INTERFACE`; `NL80211_ATTR_IFINDEX`, `NL80211_ATTR_IFTYPE`, `NL80211_ATTR_4ADDR`.
const GET_INTERFACE: u8 = 5;
const IFINDEX: u16 = 3;
const IFTYPE: u16 = 5;
const FOUR_ADDRESSES: u16 = 0x53;

/// `NL80211_IFTYPE_ADHOC`, `NL80211_IFTYPE_STATION`, `NL80211_IFTYPE_P2P_CLIENT`.
const ONE_ADDRESS: [u32; 3] = [1, 2, 8];

/// Whether frames from and to other addresses than its own do not pass the air: of a station, its access point
/// knows no others (IEEE 802.11 frames with three addresses).
pub(crate) fn has_one_address(ifindex: u32) -> bool {
    // Else the question alone would load the kernel's Wi-Fi modules.
    if !Path::new("/sys/class/ieee80211").exists() {
        return false;
    }
    let answer = genl::ask("nl80211", GET_INTERFACE, (IFINDEX, &ifindex.to_ne_bytes()));
    answer.is_ok_and(|answer| {
        let kind = genl::value(&answer, IFTYPE).map(u32::from_ne_bytes);
        let bridges = genl::value(&answer, FOUR_ADDRESSES) == Some([1]);
        kind.is_some_and(|kind| ONE_ADDRESS.contains(&kind)) && !bridges
    })
}
