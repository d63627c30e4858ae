#![expect(unsafe_code, reason = "ethtool's ioctl has no safe wrapper")]
//! What a driver says through ethtool's ioctl (linux/ethtool.h).

use std::{ffi::CString, io, os::fd::AsRawFd, path::Path};

use crate::features;

/// `ETHTOOL_GDRVINFO`.
const GDRVINFO: u32 = 0x03;
/// `ETHTOOL_GCHANNELS`.
const GCHANNELS: u32 = 0x3c;
/// `ETHTOOL_GRXFHINDIR`.
const GRXFHINDIR: u32 = 0x38;
/// `ETHTOOL_GLINKSETTINGS`.
const GLINKSETTINGS: u32 = 0x4c;
/// `SPEED_UNKNOWN` is -1; what is above `INT_MAX` is no speed either.
const MAX_SPEED: u32 = 0x7fff_ffff;
/// `DUPLEX_HALF` and `DUPLEX_FULL`.
const HALF: u8 = 0;
const FULL: u8 = 1;
/// Most words of a link mode mask: the length is signed, and of 8 bits.
const MAX_MODE_WORDS: usize = 3 * 127;
/// `ETHTOOL_GFLAGS`, whose answer has the next two.
const GFLAGS: u32 = 0x25;
/// `ETH_FLAG_LRO`.
const FLAG_LRO: u32 = 1 << 15;
/// `ETH_FLAG_TXVLAN`.
const FLAG_TXVLAN: u32 = 1 << 7;
/// `ETH_FLAG_RXVLAN`.
const FLAG_RXVLAN: u32 = 1 << 8;

/// Offloads with commands of their own, by the names that `ethtool -K` takes.
const OFFLOADS: [(&str, u32); 5] = [
    ("rx", 0x14),
    ("tx", 0x16),
    ("tso", 0x1e),
    ("gso", 0x23),
    ("gro", 0x2b),
];

/// Offloads that are flags of one command.
const FLAGS: [(&str, u32); 3] = [
    ("lro", FLAG_LRO),
    ("rxvlan", FLAG_RXVLAN),
    ("txvlan", FLAG_TXVLAN),
];

/// Offloads that have neither.
const NAMED: [&str; 2] = ["rx-vlan-stag-hw-parse", "tx-vlan-stag-hw-insert"];

/// Work that a card or the kernel's stack does on frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Its name, as `ethtool -K` takes it.
    pub name: &'static str,
    /// Whether it is switched on.
    pub on: bool,
}

/// A command's data, which starts with the command.
///
/// # Safety
/// Any bytes are a value, and it is as long as what the kernel writes for the command in it.
unsafe trait Data {}

/// Number of channels of an interface (`struct ethtool_channels`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

// SAFETY: laid out like the kernel's struct of GCHANNELS, the only command it is made with.
unsafe impl Data for Channels {}

impl Channels {
    /// Number of queues that can be bound now: the kernel takes a queue id below the larger of the
    /// numbers of receive and transmit queues (`xp_assign_dev`).
    pub(crate) fn queues(&self) -> u32 {
        self.combined.saturating_add(self.rx.max(self.tx))
    }

    /// Number of queues that `ethtool -L` can set at most.
    pub(crate) fn max_queues(&self) -> u32 {
        self.max_combined.max(self.max_rx).max(self.max_tx)
    }

    /// Whether a channel is a receive and a transmit queue, which is how `ethtool -L` has to name it.
    pub(crate) fn are_combined(&self) -> bool {
        self.max_combined != 0
    }
}

/// Longest indirection table that is asked for, in entries; the largest known has 2048.
const MAX_INDIRECTIONS: usize = 4096;

/// `struct ethtool_rxfh_indir`, with that much room.
#[repr(C)]
struct Indirections {
    command: u32,
    size: u32,
    rings: [u32; MAX_INDIRECTIONS],
}

// SAFETY: laid out like the kernel's struct of GRXFHINDIR, the only command it is made with; the
// kernel writes as many entries as `size` says there is room for at most, else it fails.
unsafe impl Data for Indirections {}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    /// version, fw_version.
    versions: [u8; 2 * 32],
    bus_info: [u8; 32],
    /// erom_version; reserved2; five numbers.
    rest: [u8; 32 + 12 + 5 * 4],
}

// SAFETY: as long as the kernel's struct of GDRVINFO, the only command it is made with.
unsafe impl Data for DriverInfo {}

/// `struct ethtool_link_settings`, with the masks that come after it.
#[repr(C)]
struct LinkSettings {
    command: u32,
    speed: u32,
    duplex: u8,
    /// port, phy_address, autoneg, mdio_support, eth_tp_mdix, eth_tp_mdix_ctrl.
    physical: [u8; 6],
    /// Length of each of the three masks in words. Negative in an answer: so long must they be.
    mask_words: i8,
    /// transceiver, master_slave_cfg, master_slave_state, rate_matching; reserved.
    rest: [u8; 4 + 7 * 4],
    masks: [u32; MAX_MODE_WORDS],
}

// SAFETY: laid out like the kernel's struct of GLINKSETTINGS, the only command it is made with; its
// masks have room for the longest that the kernel can be asked for.
unsafe impl Data for LinkSettings {}

/// How fast a link is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkSpeed {
    /// In megabits (10^6) a second; `None`: the driver does not say, or there is no link.
    pub mbps: Option<u32>,
    /// Whether it carries both ways at a time; `None`: the driver does not say.
    pub full_duplex: Option<bool>,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

// SAFETY: laid out like the kernel's struct of the commands of OFFLOADS and GFLAGS, the only ones
// that it is made with.
unsafe impl Data for Value {}

/// Asks the driver for the interface's channels. `None`: the driver does not say.
///
/// # Errors
/// The system's, when the interface is gone.
pub(crate) fn channels(interface: &str) -> io::Result<Option<Channels>> {
    ask(
        interface,
        Channels {
            command: GCHANNELS,
            ..Channels::default()
        },
    )
}

/// The receive queues that the interface spreads flows over (RSS), each as often as its indirection table
/// has it. `None`: it has no such table.
///
/// # Errors
/// The system's, when the interface is gone.
pub(crate) fn indirections(interface: &str) -> io::Result<Option<Vec<u32>>> {
    let table = ask(
        interface,
        Indirections {
            command: GRXFHINDIR,
            size: u32::try_from(MAX_INDIRECTIONS).unwrap_or_default(),
            rings: [0; _],
        },
    )?;
    let rings = table.and_then(|table| {
        let length = usize::try_from(table.size).ok()?;
        table.rings.get(..length).map(<[u32]>::to_vec)
    });
    Ok(rings.filter(|rings| !rings.is_empty()))
}

/// Name of the interface's driver. `None`: it does not say.
///
/// # Errors
/// The system's, when the interface is gone.
pub(crate) fn driver(interface: &str) -> io::Result<Option<String>> {
    let name = driver_info(interface)?.map(|info| text(&info.driver));
    Ok(name.filter(|name| !name.is_empty()))
}

/// Whether it is a virtual function of a card (SR-IOV), as far as this process sees `/sys`.
///
/// # Errors
/// The system's, when the interface is gone.
pub(crate) fn is_virtual_function(interface: &str) -> io::Result<bool> {
    let bus = driver_info(interface)?.map(|info| text(&info.bus_info));
    Ok(bus.is_some_and(|bus| {
        // An address, such as 0000:01:00.0; a driver without a bus may write anything.
        let is_address = bus
            .bytes()
            .all(|it| it.is_ascii_hexdigit() || b":.".contains(&it));
        let device = Path::new("/sys/bus/pci/devices").join(&bus);
        is_address && bus.contains(':') && device.join("physfn").exists()
    }))
}

fn driver_info(interface: &str) -> io::Result<Option<DriverInfo>> {
    ask(
        interface,
        DriverInfo {
            command: GDRVINFO,
            driver: [0; 32],
            versions: [0; _],
            bus_info: [0; 32],
            rest: [0; _],
        },
    )
}

/// Up to the first zero.
fn text(field: &[u8]) -> String {
    let text = field.split(|byte| *byte == 0).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}

/// The speed of the interface's link, as far as the driver says.
///
/// # Errors
/// The system's, when the interface is gone.
pub(crate) fn link_speed(interface: &str) -> io::Result<LinkSpeed> {
    let settings = |mask_words| LinkSettings {
        command: GLINKSETTINGS,
        speed: 0,
        duplex: 0,
        physical: [0; _],
        mask_words,
        rest: [0; _],
        masks: [0; _],
    };
    // The first answer only says how long the masks are; the second one has them, and the speed.
    let first = ask(interface, settings(0))?;
    let words = first.and_then(|answer| answer.mask_words.checked_neg());
    let Some(words) = words.filter(|&words| words > 0) else {
        return Ok(LinkSpeed::default());
    };
    let Some(answer) = ask(interface, settings(words))? else {
        return Ok(LinkSpeed::default());
    };
    Ok(LinkSpeed {
        mbps: Some(answer.speed).filter(|speed| (1..=MAX_SPEED).contains(speed)),
        full_duplex: match answer.duplex {
            HALF => Some(false),
            FULL => Some(true),
            _ => None,
        },
    })
}

/// The offloads of the interface of that name and index, as far as the driver says.
///
/// # Errors
/// The system's, when the interface is gone.
pub(crate) fn offloads(interface: &str, index: u32) -> io::Result<Vec<Offload>> {
    let value = |command| ask(interface, Value { command, data: 0 });
    let mut offloads = Vec::new();
    for (name, command) in OFFLOADS {
        let on = value(command)?.map(|value| value.data != 0);
        offloads.extend(on.map(|on| Offload { name, on }));
    }
    if let Some(flags) = value(GFLAGS)? {
        offloads.extend(FLAGS.map(|(name, flag)| Offload {
            name,
            on: flags.data & flag != 0,
        }));
    }
    if let Ok(active) = features::active(index) {
        offloads.extend(NAMED.map(|name| Offload {
            name,
            on: active.iter().any(|it| it == name),
        }));
    }
    Ok(offloads)
}

/// Runs one command. `None`: the driver does not have it, or it is not allowed.
fn ask<T: Data>(interface: &str, mut data: T) -> io::Result<Option<T>> {
    // Any socket has the ioctl. One of this family reaches no network, so that a confined process can be
    // allowed to make it.
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    let mut request = libc::ifreq {
        ifr_name: interface_name(interface)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut data).cast(),
        },
    };
    // SAFETY: the request has a terminated name and points to data of the size that its command
    // writes (`Data`); both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result == 0 {
        return Ok(Some(data));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EPERM) => Ok(None),
        _ => Err(error),
    }
}

fn interface_name(name: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let name = CString::new(name)?;
    let mut field: [libc::c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    // The last byte stays 0.
    if name.count_bytes() >= field.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in field.iter_mut().zip(name.as_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<Channels>(), 36);
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert_eq!(size_of::<Value>(), 8);
        assert_eq!(size_of::<Indirections>(), 8 + 4 * MAX_INDIRECTIONS);
        let masks = 4 * MAX_MODE_WORDS;
        assert_eq!(size_of::<LinkSettings>(), 48 + masks);
    }

    #[test]
    fn loopback_has_offloads_and_other_names_are_errors() {
        let offloads = offloads("lo", 1).unwrap();
        assert!(offloads.iter().any(|it| it.name == "gso"), "{offloads:?}");
        assert_eq!(link_speed("lo").unwrap(), LinkSpeed::default());
        let missing = "rw-not-there";
        for error in [driver(missing).err(), link_speed(missing).err()] {
            assert_eq!(error.and_then(|e| e.raw_os_error()), Some(libc::ENODEV));
        }
    }
}
