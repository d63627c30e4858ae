//! Whole-system tests: the `ringwire` program with real guests on real wires.
//!
//! The tests themselves are in `tests/system/` and, those on network cards with XDP zero-copy, in `tests/zerocopy/`, behind the feature `guests`; `make test` builds what they need and runs
//! them on a KVM that can boot Linux. Here is what they are made of.
//!
//! ```no_run
//! use ringwire_tests::{Guest, Options, Wire};
//!
//! let wire = Wire::new();
//! let mut guest = Guest::boot(Options::new().on(&wire));
//! guest.ok(&format!("ping -c 3 {}", Wire::PEER));
//! assert!(guest.power_off().success());
//! ```

mod background;
mod capture;
mod cards;
mod console;
mod guest;
mod setup;
mod sums;
mod watch;
mod wire;
pub mod wirecheck;

pub use background::Background;
pub use capture::Capture;
pub use cards::Card;
pub use guest::{Guest, Options, Output, by_pair};
pub use setup::{Setup, TempDir};
pub use sums::Sums;
pub use watch::assert_frames_add_up;
pub use wire::Wire;
