//! `--netdev`, `--device`, `--disk` and `--memory` as they are typed.

use vmm::{
    VmConfig,
    cli::{
        memory::memory,
        netdev::{device, disk, netdev},
    },
};

/// Reads the text as each of the options; what is understood is checked as the command checks it.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // A line each, as many as there are: ids may be the same.
    let mut config = VmConfig::new("vmlinuz");
    let mut used = Vec::new();
    for (index, line) in text.lines().take(8).enumerate() {
        match netdev(line, index) {
            Ok(one) => {
                assert!(!one.id.is_empty() && !one.port.ifname.is_empty());
                config.netdevs.push(one);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let had = used.len();
        if let Err(error) = device(line, &mut config.netdevs, &mut used) {
            assert!(!error.to_string().is_empty());
            assert_eq!(used.len(), had, "a refused device is no device");
        }
        if let Ok(one) = disk(line) {
            config.disks.push(one);
        }
        let _ = memory(line);
    }
    if let Err(error) = config.validate() {
        assert!(!error.to_string().is_empty());
    }
}
