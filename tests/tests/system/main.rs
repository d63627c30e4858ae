//! Real guests, real wires. See the crate's documentation; `make test` runs these. Numbers in comments are those
//! of the project's catalogue of hostile input and faults.

mod boot;
mod bus_master;
mod control;
mod disk;
mod faults;
mod flood;
mod hostile;
mod icmp;
mod jail;
mod life;
mod mixed;
mod net;
mod newer;
mod offload;
mod offload_measure;
mod open;
mod pairs;
mod pci;
mod plugin;
mod resize;
mod udp_segments;
