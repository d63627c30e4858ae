//! `--netdev af-xdp,...`, `--device virtio-net-mmio,...` and `--disk ...`.

use net_afxdp::AttachMode;

use super::options::{Options, OptionsError, with_kind};
use crate::config::{DiskConfig, NetdevConfig};

/// Why an option was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetdevError {
    /// another kind than the one there is
    #[error("there is no {what} '{kind}': the one there is is {known}")]
    Kind {
        /// "netdev" or "device".
        what: &'static str,
        /// What was asked for.
        kind: String,
        /// What there is.
        known: &'static str,
    },
    /// QEMU has it, a later version will
    #[error("the option '{0}' is not in this version of ringwire")]
    Later(&'static str),
    /// the list
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// a device for a netdev that is not there
    #[error("there is no netdev '{0}' for the device")]
    NoNetdev(String),
    /// two devices for one netdev
    #[error("netdev '{0}' has two devices")]
    TwoDevices(String),
}

/// Keys that QEMU knows and this version does not.
const LATER: [&str; 7] = [
    "inhibit",
    "sock-fds",
    "xsks-map-fd",
    "map-path",
    "map-start-index",
    "require",
    "busy-poll",
];

/// Reads one `--netdev`; `index` numbers it, for the default id.
///
/// # Errors
/// Not af-xdp, no interface, unknown or repeated keys, values that are none.
pub fn netdev(text: &str, index: usize) -> Result<NetdevConfig, NetdevError> {
    let (kind, mut options) = with_kind(text)?;
    if kind != "af-xdp" {
        let (what, known) = ("netdev", "af-xdp");
        return Err(NetdevError::Kind { what, kind, known });
    }
    let id = match options.take("id") {
        Some(id) if id.is_empty() => return Err(OptionsError::Missing("id").into()),
        Some(id) => id,
        None => format!("net{index}"),
    };
    let mut config = NetdevConfig::new(id, options.require("ifname")?);
    config.mode = options.convert("mode", "native or skb", |value| match value {
        "native" => Some(AttachMode::Native),
        "skb" => Some(AttachMode::Skb),
        _ => None,
    })?;
    config.force_copy = options.switch("force-copy")?.unwrap_or(config.force_copy);
    config.queues = options.number("queues")?.unwrap_or(config.queues);
    config.start_queue = options.number("start-queue")?.unwrap_or(config.start_queue);
    config.frames = options.number("frames")?.unwrap_or(config.frames);
    let mut rest = options.clone();
    if let Some(key) = LATER.into_iter().find(|key| rest.take(key).is_some()) {
        return Err(NetdevError::Later(key));
    }
    options.finish()?;
    Ok(config)
}

/// Reads one `--device virtio-net-mmio,netdev=ID,mac=...` into the netdev that it is for.
/// `used` collects the ids that have a device.
///
/// # Errors
/// As [`netdev`]; or the netdev is not there, or has a device already.
pub fn device(
    text: &str,
    netdevs: &mut [NetdevConfig],
    used: &mut Vec<String>,
) -> Result<(), NetdevError> {
    let (kind, mut options) = with_kind(text)?;
    if kind != "virtio-net-mmio" {
        let (what, known) = ("device", "virtio-net-mmio");
        return Err(NetdevError::Kind { what, kind, known });
    }
    let id = options.require("netdev")?;
    let mac = options.convert(
        "mac",
        "six bytes in hexadecimal, such as 52:54:00:12:34:56, not a multicast address",
        mac,
    )?;
    options.finish()?;
    let Some(netdev) = netdevs.iter_mut().find(|netdev| netdev.id == id) else {
        return Err(NetdevError::NoNetdev(id));
    };
    if used.contains(&id) {
        return Err(NetdevError::TwoDevices(id));
    }
    netdev.mac = mac.or(netdev.mac);
    used.push(id);
    Ok(())
}

/// Reads one `--disk path=...,readonly=on|off`.
///
/// # Errors
/// No path, unknown or repeated keys, values that are none.
pub fn disk(text: &str) -> Result<DiskConfig, OptionsError> {
    let mut options = Options::parse(text)?;
    let path = options.require("path")?.into();
    let readonly = options.switch("readonly")?.unwrap_or(false);
    options.finish()?;
    Ok(DiskConfig { path, readonly })
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
    use super::*;

    fn refused(text: &str) -> String {
        netdev(text, 0).unwrap_err().to_string()
    }

    #[test]
    fn all_keys_are_read() {
        let config = netdev(
            "af-xdp,id=a,ifname=eth1,mode=skb,force-copy=on,queues=2,start-queue=3,frames=512",
            4,
        );
        let wanted = NetdevConfig {
            mode: Some(AttachMode::Skb),
            force_copy: true,
            queues: 2,
            start_queue: 3,
            frames: 512,
            ..NetdevConfig::new("a", "eth1")
        };
        assert_eq!(config, Ok(wanted));
        let defaults = netdev("af-xdp,ifname=eth1", 4);
        assert_eq!(defaults, Ok(NetdevConfig::new("net4", "eth1")));
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
        assert!(refused("af-xdp,ifname=a,mode=drv").contains("native or skb"));
        assert!(refused("af-xdp,ifname=a,queues=-1").contains("a whole number"));
        assert!(refused("af-xdp,ifname=a,start-queue=x").contains("a whole number"));
        for key in LATER {
            let sentence = refused(&format!("af-xdp,ifname=a,{key}=1"));
            assert!(sentence.contains("is not in this version"), "{sentence}");
        }
    }

    #[test]
    fn devices_give_mac_addresses() {
        let mut netdevs = [NetdevConfig::new("net0", "eth1")];
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
        assert!(
            add("virtio-net-pci,netdev=net0")
                .unwrap_err()
                .contains("virtio-net-mmio")
        );
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
        assert!(disk("path=x,size=3").is_err());
        assert!(disk("/tmp/x").is_err());
    }
}
