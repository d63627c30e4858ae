//! Real guests, real wires. See the crate's documentation; `make test` runs these. Numbers in comments are those
//! of the project's catalogue of hostile input and faults.

mod boot;
mod bus_master;
mod console;
mod control;
mod disk;
mod faults;
mod flood;
mod hostile;
mod icmp;
mod interfaces;
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
mod tunnels;
mod udp_segments;
