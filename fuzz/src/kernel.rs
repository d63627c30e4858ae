//! Kernel images, bzImage and ELF.

use std::{
    cell::RefCell,
    fs::File,
    io::{Seek, Write},
    os::fd::AsRawFd,
    path::PathBuf,
};

use devices::GuestRam;
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::GuestAddress;
use vmm::kernel::load;

/// Bytes of guest memory, from 0 on.
const RAM: usize = 64 << 20;

thread_local! {
    /// The image, without a name in any directory that would be left behind, and the memory: it is not
    /// looked at, so it may keep what was loaded before.
    static HOST: RefCell<(File, GuestRam)> = RefCell::new((
        memfd_create("kernel", MemfdFlags::CLOEXEC).expect("a memfd").into(),
        GuestRam::from_ranges(&[(GuestAddress(0), RAM)]).expect("guest memory"),
    ));
}

/// Loads the bytes as a kernel; what is loaded lies in guest memory.
pub fn run(data: &[u8]) {
    HOST.with_borrow_mut(|(file, ram)| {
        file.set_len(0).expect("an empty file");
        file.rewind().expect("a file that can seek");
        file.write_all(data).expect("a file in memory");
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        match load(&path, ram, RAM as u64) {
            Ok(kernel) => assert!(kernel.end <= RAM as u64, "{kernel:?}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}
