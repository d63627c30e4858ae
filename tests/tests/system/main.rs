//! Real guests, real wires. See the crate's documentation; `make test` runs these.

mod boot;
mod disk;
mod life;
mod net;
mod offload;
mod open;
mod pairs;
mod pci;
