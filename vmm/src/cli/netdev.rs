//! `--netdev af-xdp,...`, `--device virtio-net-pci,...` and `--disk ...`.

use std::time::Duration;

use devices::virtio::net::BusyPoll;
use net_afxdp::{AttachMode, Require, TxMetadata};

use super::{
    offloads::{OffloadsError, offloads},
    options::{Options, OptionsError, with_kind},
    rate,
    source::{self, SourceError},
};
use crate::config::{DiskConfig, NetdevConfig, Transport};

/// Why an option was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetdevError {
    /// another netdev than the one there is
    #[error("there is no netdev '{0}': the one there is is af-xdp")]
    Netdev(String),
    /// another device than those that there are
    #[error("there is no device '{0}': there are virtio-net-pci and virtio-net-mmio")]
    Device(String),
    /// the list
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// the program and the sockets
    #[error(transparent)]
    Source(#[from] SourceError),
    /// what the card offers
    #[error(transparent)]
    Offloads(#[from] OffloadsError),
    /// a device for a netdev that is not there
    #[error("there is no netdev '{0}' for the device")]
    NoNetdev(String),
    /// a user without confinement
    #[error("becoming another user is part of the confinement: leave --confine off out")]
    NotConfined,
    /// two devices for one netdev
    #[error("netdev '{0}' has two devices")]
    TwoDevices(String),
}

/// Reads one `--netdev`; `index` numbers it, for the default id.
///
/// # Errors
/// Not af-xdp, no interface, unknown or repeated keys, values that are none, keys that exclude each
/// other.
pub fn netdev(text: &str, index: usize) -> Result<NetdevConfig, NetdevError> {
    let (kind, mut options) = with_kind(text)?;
    if kind != "af-xdp" {
        return Err(NetdevError::Netdev(kind));
    }
    let id = match options.take("id") {
        Some(id) if id.is_empty() => return Err(OptionsError::Missing("id").into()),
        Some(id) => id,
        None => format!("net{index}"),
    };
    let mut config = NetdevConfig::new(id, options.require("ifname")?);
    let port = &mut config.port;
    port.mode = options.convert("mode", "native or skb", |value| match value {
        "native" => Some(AttachMode::Native),
        "skb" => Some(AttachMode::Skb),
        _ => None,
    })?;
    port.force_copy = options.switch("force-copy")?.unwrap_or(port.force_copy);
    port.queues = options.number("queues")?.unwrap_or(port.queues);
    port.start_queue = options.number("start-queue")?.unwrap_or(port.start_queue);
    port.frames = options.number("frames")?.unwrap_or(port.frames);
    let require = options.convert("require", "any, native or zerocopy", |value| match value {
        "any" => Some(Require::Any),
        "native" => Some(Require::Native),
        "zerocopy" => Some(Require::ZeroCopy),
        _ => None,
    })?;
    port.require = require.unwrap_or(port.require);
    let tx_metadata = options.convert("tx-metadata", "auto, on or off", |value| match value {
        "auto" => Some(TxMetadata::Auto),
        "on" => Some(TxMetadata::On),
        "off" => Some(TxMetadata::Off),
        _ => None,
    })?;
    port.tx_metadata = tx_metadata.unwrap_or(port.tx_metadata);
    config.rate = options.convert("rate", rate::EXPECTED, rate::rate)?;
    config.source = source::source(&mut options)?;
    let busy_poll = options.convert("busy-poll", BUSY_POLL, busy_poll)?;
    config.busy_poll = busy_poll.unwrap_or(config.busy_poll);
    let zero_copy_tx = options.switch("zero-copy-tx")?;
    config.zero_copy_tx = zero_copy_tx.unwrap_or(config.zero_copy_tx);
    options.finish()?;
    Ok(config)
}

/// Reads one `--device virtio-net-pci,netdev=ID,mac=...` (or `virtio-net-mmio`) into the netdev that it
/// is for. `used` collects the ids that have a device.
///
/// # Errors
/// As [`netdev`]; or the netdev is not there, or has a device already.
pub fn device(
    text: &str,
    netdevs: &mut [NetdevConfig],
    used: &mut Vec<String>,
) -> Result<(), NetdevError> {
    let (kind, mut options) = with_kind(text)?;
    let transport = match kind.as_str() {
        "virtio-net-pci" => Transport::Pci,
        "virtio-net-mmio" => Transport::Mmio,
        _ => return Err(NetdevError::Device(kind)),
    };
    let id = options.require("netdev")?;
    let mac = options.convert(
        "mac",
        "six bytes in hexadecimal, such as 52:54:00:12:34:56, not a multicast address",
        mac,
    )?;
    let offloads = offloads(&mut options)?;
    options.finish()?;
    let Some(netdev) = netdevs.iter_mut().find(|netdev| netdev.id == id) else {
        return Err(NetdevError::NoNetdev(id));
    };
    if used.contains(&id) {
        return Err(NetdevError::TwoDevices(id));
    }
    netdev.transport = Some(transport);
    netdev.mac = mac.or(netdev.mac);
    netdev.offloads = offloads;
    used.push(id);
    Ok(())
}

/// What `serial` expects.
const SERIAL: &str = "1 to 20 printable ASCII characters without spaces and slashes";

/// Reads one `--disk path=...,readonly=on|off,serial=...`.
///
/// # Errors
/// No path, unknown or repeated keys, values that are none.
pub fn disk(text: &str) -> Result<DiskConfig, OptionsError> {
    let mut options = Options::parse(text)?;
    let path = options.require("path")?.into();
    let readonly = options.switch("readonly")?.unwrap_or(false);
    let serial = options.convert("serial", SERIAL, |text| text.parse().ok())?;
    options.finish()?;
    Ok(DiskConfig {
        path,
        readonly,
        serial,
    })
}

/// What `busy-poll` expects.
const BUSY_POLL: &str = "microseconds, from 0 (never) to 100000";

fn busy_poll(text: &str) -> Option<BusyPoll> {
    let microseconds = text.parse().ok().filter(|&time| time <= 100_000)?;
    Some(BusyPoll::For(Duration::from_micros(microseconds)))
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    // A station's address: not a group's, not nobody's.
    let unicast = mac.first().is_some_and(|first| first & 1 == 0) && mac != [0; 6];
    (parts.next().is_none() && unicast).then_some(mac)
}

#[cfg(test)]
mod tests {
    use net_afxdp::PortConfig;

    use super::*;
    use crate::config::SourceConfig;

    fn refused(text: &str) -> String {
        netdev(text, 0).unwrap_err().to_string()
    }

    #[test]
    fn all_keys_are_read() {
        let config = netdev(
            "af-xdp,id=a,ifname=eth1,mode=skb,force-copy=on,queues=2,start-queue=3,frames=512,\
             require=any,rate=1K,inhibit=on,sock-fds=7:8,zero-copy-tx=on,\
             tx-metadata=off",
            4,
        );
        let wanted = NetdevConfig {
            port: PortConfig {
                ifname: "eth1".to_owned(),
                mode: Some(AttachMode::Skb),
                force_copy: true,
                queues: 2,
                start_queue: 3,
                frames: 512,
                require: Require::Any,
                scattered: false,
                tx_metadata: TxMetadata::Off,
            },
            source: SourceConfig::SockFds(vec![7, 8]),
            rate: rate::rate("1K"),
            zero_copy_tx: true,
            ..NetdevConfig::new("a", "eth1")
        };
        assert_eq!(config, Ok(wanted));
        let defaults = netdev("af-xdp,ifname=eth1", 4);
        assert_eq!(defaults, Ok(NetdevConfig::new("net4", "eth1")));
        for (value, require) in [("native", Require::Native), ("zerocopy", Require::ZeroCopy)] {
            let config = netdev(&format!("af-xdp,ifname=eth1,require={value}"), 0).unwrap();
            assert_eq!(config.port.require, require);
        }
        for (value, wanted) in [("auto", TxMetadata::Auto), ("on", TxMetadata::On)] {
            let config = netdev(&format!("af-xdp,ifname=eth1,tx-metadata={value}"), 0).unwrap();
            assert_eq!(config.port.tx_metadata, wanted);
        }
    }

    #[test]
    fn wrong_netdevs_are_refused() {
        assert_eq!(
            refused("tap,ifname=tap0"),
            "there is no netdev 'tap': the one there is is af-xdp"
        );
        assert_eq!(refused("af-xdp"), "the option 'ifname' is missing");
        assert_eq!(refused("af-xdp,ifname="), "the option 'ifname' is missing");
        assert!(refused("af-xdp,ifname=a,ifname=b").contains("given twice"));
        assert!(refused("af-xdp,ifname=a,colour=red").contains("no option 'colour'"));
        for (option, words) in [
            ("id=", "the option 'id' is missing"),
            ("mode=drv", "'drv' is no value for mode: native or skb"),
            ("force-copy=1", "'1' is no value for force-copy: on or off"),
            ("queues=-1", "'-1' is no value for queues: a whole number"),
            (
                "start-queue=-1",
                "'-1' is no value for start-queue: a whole",
            ),
            ("frames=x", "'x' is no value for frames: a whole number"),
            (
                "require=all",
                "'all' is no value for require: any, native or zerocopy",
            ),
            (
                "rate=0",
                "'0' is no value for rate: packets a second, bytes",
            ),
            (
                "zero-copy-tx=yes",
                "'yes' is no value for zero-copy-tx: on or off",
            ),
            (
                "tx-metadata=yes",
                "'yes' is no value for tx-metadata: auto, on or off",
            ),
            (
                "busy-poll=100001",
                "'100001' is no value for busy-poll: microseconds, from 0",
            ),
        ] {
            let sentence = refused(&format!("af-xdp,ifname=a,{option}"));
            assert!(sentence.starts_with(words), "{sentence}");
        }
    }

    #[test]
    fn devices_give_mac_addresses() {
        let new = NetdevConfig::new;
        let mut netdevs = [new("net0", "eth1"), new("net1", "eth2")];
        let mut used = Vec::new();
        let mut add = |text| {
            let result = device(text, &mut netdevs, &mut used);
            result.map_err(|e| e.to_string())
        };
        add("virtio-net-mmio,netdev=net0,mac=52:54:00:12:34:5F").unwrap();
        assert!(
            add("virtio-net-mmio,netdev=net0")
                .unwrap_err()
                .contains("two devices")
        );
        assert!(
            add("virtio-net-mmio,netdev=x")
                .unwrap_err()
                .contains("no netdev 'x'")
        );
        assert_eq!(
            add("e1000,netdev=net0"),
            Err(
                "there is no device 'e1000': there are virtio-net-pci and virtio-net-mmio"
                    .to_owned()
            )
        );
        add("virtio-net-pci,netdev=net1").unwrap();
        for mac in [
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "53:54:00:12:34:56",
            "00:00:00:00:00:00",
            "+2:54:00:12:34:56",
            "525400123456",
        ] {
            let text = format!("virtio-net-mmio,netdev=net0,mac={mac}");
            let sentence = device(&text, &mut [], &mut Vec::new())
                .unwrap_err()
                .to_string();
            assert!(sentence.contains("six bytes in hexadecimal"), "{mac}");
        }
        assert_eq!(netdevs[0].mac, Some([0x52, 0x54, 0, 0x12, 0x34, 0x5f]));
        let transports = netdevs.each_ref().map(|netdev| netdev.transport);
        assert_eq!(transports, [Some(Transport::Mmio), Some(Transport::Pci)]);
    }

    #[test]
    fn disks_have_a_path() {
        let config = disk("path=/tmp/a,,b,readonly=on").unwrap();
        assert_eq!(
            (config.path.to_str(), config.readonly),
            (Some("/tmp/a,b"), true)
        );
        assert!(!disk("path=x").unwrap().readonly);
        assert_eq!(disk("readonly=on"), Err(OptionsError::Missing("path")));
        assert_eq!(config.serial, None);
        let serial = disk("path=x,serial=db-1").unwrap().serial.unwrap();
        assert_eq!(serial.to_string(), "db-1");
        let refused = disk("path=x,serial=0123456789abcdefghijk").unwrap_err();
        assert!(refused.to_string().ends_with(SERIAL), "{refused}");
        assert!(disk("path=x,size=3").is_err());
        assert!(disk("/tmp/x").is_err());
    }
}
