//! Compiles the XDP program with clang into an object that the crate embeds.

use std::{env, ffi::OsString, path::PathBuf, process::Command};

const SOURCE: &str = "bpf/xsk.bpf.c";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-env-changed=CLANG");

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("xsk.bpf.o");
    let clang = env::var_os("CLANG").unwrap_or_else(|| OsString::from("clang"));
    let mut command = Command::new(&clang);
    command
        .args([
            "-target", "bpf", "-mcpu=v2", "-O2", "-Wall", "-Wextra", "-Werror",
        ])
        // libbpf reads the maps' definitions from BTF, which clang makes with -g only.
        .arg("-g")
        // Debian keeps asm/types.h in the multiarch directory, which the bpf target does not search.
        .arg("-idirafter")
        .arg(format!("/usr/include/{}", multiarch()))
        .args(["-c", SOURCE, "-o"])
        .arg(&out);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{clang:?} could not compile {SOURCE}: {status}"),
        Err(error) => panic!(
            "could not run {clang:?} to compile {SOURCE}: {error}. Install clang (Debian: apt-get \
             install clang), or name another one in the environment variable CLANG"
        ),
    }
}

/// The directory below /usr/include that Debian keeps the architecture's headers in.
fn multiarch() -> String {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let arch = if arch == "x86" { "i386" } else { &arch };
    format!("{arch}-linux-gnu")
}
