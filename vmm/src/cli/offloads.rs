//! `csum=`, `tso=`, `uso=` and `gro=` of `--device`: what the card offers to do for the guest.

use devices::virtio::net::Offloads;

use super::options::{Options, OptionsError};

/// Why offloads were not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OffloadsError {
    /// the list
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// what virtio does not know without checksums
    #[error("{0}=on needs csum=on: leave csum=off out, or leave {0}=on out")]
    NeedsCsum(&'static str),
}

/// Reads the four switches. All are on unless said otherwise, or unless csum is off.
///
/// # Errors
/// Values that are none, and what is switched on that needs what is switched off.
pub fn offloads(options: &mut Options) -> Result<Offloads, OffloadsError> {
    let csum = options.switch("csum")?.unwrap_or(true);
    let offloads = Offloads {
        csum,
        tso: options.switch("tso")?.unwrap_or(csum),
        uso: options.switch("uso")?.unwrap_or(csum),
        gro: options.switch("gro")?.unwrap_or(csum),
    };
    match offloads.without_checksums() {
        Some(name) => Err(OffloadsError::NeedsCsum(name)),
        None => Ok(offloads),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::netdev::device, config::NetdevConfig};

    fn read(text: &str) -> Result<Offloads, String> {
        let mut options = Options::parse(text).unwrap();
        offloads(&mut options).map_err(|error| error.to_string())
    }

    #[test]
    fn all_are_on_unless_switched_off() {
        let all = Offloads::default();
        assert_eq!(read("x=1"), Ok(all));
        assert_eq!(read("csum=on,tso=on,uso=on,gro=on"), Ok(all));
        assert_eq!(read("tso=off"), Ok(Offloads { tso: false, ..all }));
        assert_eq!(read("uso=off"), Ok(Offloads { uso: false, ..all }));
        assert_eq!(read("gro=off"), Ok(Offloads { gro: false, ..all }));
        assert_eq!(read("csum=off"), Ok(Offloads::NONE));
        assert_eq!(read("csum=off,gro=off"), Ok(Offloads::NONE));
    }

    #[test]
    fn wrong_switches_are_refused() {
        assert_eq!(
            read("tso=1"),
            Err("'1' is no value for tso: on or off".into())
        );
        assert_eq!(
            read("csum=off,gro=on"),
            Err("gro=on needs csum=on: leave csum=off out, or leave gro=on out".into())
        );
    }

    #[test]
    fn devices_have_offloads() {
        let mut netdevs = vec![NetdevConfig::new("net0", "eth0")];
        let text = "virtio-net-mmio,netdev=net0,tso=off";
        device(text, &mut netdevs, &mut Vec::new()).unwrap();
        assert_eq!(netdevs[0].mac, None);
        assert!(!netdevs[0].offloads.tso && netdevs[0].offloads.gro);
        let text = "virtio-net-mmio,netdev=net0,csum=off,uso=on";
        let error = device(text, &mut netdevs, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("uso=on needs csum=on"));
    }
}
