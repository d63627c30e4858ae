//! `ringwire check`.

use clap::Args;

use super::{ArgumentError, netdev, wrong};
use crate::config::NetdevConfig;

/// `ringwire check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// What to check: kvm (whether /dev/kvm runs what Linux needs to boot), or a netdev with its
    /// options as for `ringwire run`
    #[arg(value_name = "kvm|af-xdp,ifname=NAME,...")]
    pub what: String,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    /// Also open the interface for a moment: tells the mode and whether zero-copy works, but those
    /// who use the interface lose frames
    #[arg(long = "try")]
    pub try_out: bool,
}

/// What can be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckTarget {
    /// /dev/kvm.
    Kvm,
    /// A network card.
    Netdev(NetdevConfig),
}

impl CheckArgs {
    /// What is to be checked.
    ///
    /// # Errors
    /// Neither of them, or a list of options that is none.
    pub fn target(&self) -> Result<CheckTarget, ArgumentError> {
        let text = &self.what;
        if text == "kvm" {
            return Ok(CheckTarget::Kvm);
        }
        let netdev = netdev::netdev(text, 0).map_err(wrong("check", text))?;
        Ok(CheckTarget::Netdev(netdev))
    }
}
