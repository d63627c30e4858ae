//! The client on real veth pairs. Needs root; says so and passes without.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is the failure report, in the helpers of the tests, too"
)]

mod child;
mod examples;
mod faults;
mod foreign;
mod handed;
mod held;
mod in_place;
mod inject;
mod kinds;
mod large;
mod life;
mod link;
mod load;
mod loss;
mod measure;
mod net;
mod packet;
mod plugin;
mod plugin_server;
mod probe;
mod refusals;
mod require;
mod seccomp;
mod short;
mod sources;
mod status;
mod traffic;
mod tx_metadata;
mod unprivileged;
mod user_namespace;
