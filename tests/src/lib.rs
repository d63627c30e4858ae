//! Whole-system tests: the `ringwire` program with real guests on real wires.
//!
//! The tests themselves are in `tests/`, behind the feature `guests`; `make test` builds what they need and runs them
//! on a KVM that can boot Linux. Here is what they are made of.

pub mod wirecheck;
