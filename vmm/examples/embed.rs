//! A VM inside another program: boots a kernel, prints its console, says how it ended.
//!
//!     cargo run --example embed -- KERNEL [INITRD [INTERFACE]]

use std::{env, error::Error};

use vmm::{Vm, VmConfig, config::NetdevConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut config = VmConfig::new(arguments.next().ok_or("which kernel?")?);
    config.initrd = arguments.next().map(Into::into);
    config.memory = 128 << 20;
    for ifname in arguments {
        config.netdevs.push(NetdevConfig::new("net0", ifname));
    }

    let report = Vm::new(&config)?.run();
    println!("{}", report.reason);
    for netdev in report.netdevs {
        println!("{}: {:?}", netdev.ifname, netdev.counters);
    }
    Ok(())
}
