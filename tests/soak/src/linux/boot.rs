//! How a Linux guest comes to be.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use ringwire_tests::{Guest, Options, Setup, Wire};

use crate::setting::Setting;

/// MiB of RAM.
const MEMORY: u64 = 256;

/// How often one is booted that stands still, in the lab.
const ATTEMPTS: u32 = 3;

/// One boots at a time: on an emulated host two take longer than anybody waits.
static BOOTING: Mutex<()> = Mutex::new(());

/// Boots that came to nothing.
static STOOD_STILL: AtomicU32 = AtomicU32::new(0);

/// How many guests stood still as they booted; each was told on stderr, and another took its place.
pub(crate) fn stood_still() -> u32 {
    STOOD_STILL.load(Ordering::Relaxed)
}

/// A guest that takes commands. The lab's CPUs let one in two hundred stand still as it boots, under any VMM
/// (tests/lab/README.md), so there it is tried again; elsewhere it is a failure.
///
/// # Panics
/// When it does not get there.
pub(super) fn boot(wire: &Wire, setting: &Setting) -> Guest {
    // Held while it boots; who panicked with it has said why.
    let _turn = BOOTING.lock().unwrap_or_else(PoisonError::into_inner);
    let in_lab = std::env::var_os("RINGWIRE_LAB").is_some();
    let mut attempt = 1;
    loop {
        let mut guest = Guest::start(&options(wire, setting));
        let ready = catch_unwind(AssertUnwindSafe(|| {
            guest.wait_for("ringwire-guest: ready");
        }));
        let Err(panic) = ready else {
            return guest;
        };
        // One that ended did not stand still.
        if !in_lab || attempt == ATTEMPTS || !guest.is_running() {
            resume_unwind(panic);
        }
        STOOD_STILL.fetch_add(1, Ordering::Relaxed);
        attempt += 1;
        eprintln!("soak: a Linux guest stood still as it booted; another takes its place");
    }
}

/// The guest that goes with it.
fn options<'a>(wire: &'a Wire, setting: &Setting) -> Options<'a> {
    let bus = if setting.pci { "pci" } else { "mmio" };
    let device = format!("virtio-net-{bus},netdev=net0{}", setting.device);
    let mut others = Setup::other_kernels();
    let count = others.len() + 1;
    let options = Options::new()
        .memory(&setting.memory(MEMORY))
        .on_with(wire, &format!(",id=net0{}", setting.netdev))
        .arg("--device")
        .arg(device);
    match (setting.kernel % count).checked_sub(1) {
        Some(at) => {
            let (kernel, initrd) = others.swap_remove(at);
            options.kernel(kernel).initrd(initrd)
        }
        None => options,
    }
}
