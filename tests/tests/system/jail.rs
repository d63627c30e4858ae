//! A Linux guest in `ringwire jail`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringwire_tests::{Guest, Options, TempDir, Wire};

/// The file system of cgroup v2, mounted for the test; removed when dropped.
struct Cgroups(TempDir);

impl Cgroups {
    fn mount() -> Self {
        let cgroups = Self(TempDir::new());
        let path = cgroups.0.path();
        let mount = Command::new("mount")
            .args(["-t", "cgroup2", "none"])
            .arg(path)
            .status();
        assert!(mount.expect("mount is there").success());
        fs::create_dir(cgroups.parent()).expect("a cgroup for the test");
        cgroups
    }

    /// Below which VMs get theirs. All tests see the same cgroups, so it has the name of this one's own directory.
    fn parent(&self) -> PathBuf {
        let directory = self.0.path();
        let name = directory.file_name().unwrap_or_default();
        directory.join(format!("rw-jail-{}", name.to_string_lossy()))
    }

    /// Hands these controllers on, down to the VMs.
    fn hand_on(&self, controllers: &str) {
        for cgroup in [self.0.path(), &self.parent()] {
            let control = cgroup.join("cgroup.subtree_control");
            fs::write(&control, controllers)
                .unwrap_or_else(|e| panic!("{}: {e}", control.display()));
        }
    }

    /// What is in a file of the VM's.
    fn value(&self, guest: &Guest, file: &str) -> String {
        let path = self
            .parent()
            .join(format!("ringwire-{}", guest.id()))
            .join(file);
        let value = fs::read_to_string(&path);
        value
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .trim()
            .to_owned()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.parent());
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Everything below a directory but other directories.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory of the jail") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn a_guest_works_in_a_jail_and_keeps_to_its_limits() {
    let cgroups = Cgroups::mount();
    cgroups.hand_on("+memory +pids +cpu");
    let directory = TempDir::new();
    let disk = directory.path().join("disk");
    fs::write(&disk, vec![0; 8 << 20]).expect("a disk");
    let wire = Wire::new();
    let parent = cgroups.parent();
    let limits = "memory.max=600M,memory.swap.max=0,pids.max=40,cpu.max=150000 100000";
    let cgroup = format!("{},{limits}", parent.display());
    let options = Options::new()
        .on(&wire)
        .jail(&["--user", "65534:65533", "--cgroup", &cgroup])
        .arg("--disk")
        .arg(format!("path={}", disk.display()));
    let mut guest = Guest::boot(options);
    // The wire and the disk are there.
    guest.ok(&format!("ping -q -c 3 -W 5 {}", Wire::PEER));
    guest.ok("echo from the guest | dd of=/dev/vda bs=512 conv=sync,fsync");
    assert!(
        fs::read(&disk)
            .expect("the disk")
            .starts_with(b"from the guest")
    );
    // Nothing else is.
    let members = cgroups.value(&guest, "cgroup.procs");
    let root = PathBuf::from(format!("/proc/{members}/root"));
    let files = files_below(&root);
    assert_eq!(files.len(), 4, "{files:?}");
    assert_eq!(cgroups.value(&guest, "memory.max"), (600 << 20).to_string());
    assert_eq!(cgroups.value(&guest, "cpu.max"), "150000 100000");
    let used: u64 = cgroups
        .value(&guest, "memory.current")
        .parse()
        .expect("bytes");
    assert!(used > 32 << 20, "the guest's memory is counted: {used}");
    let status = guest.power_off();
    assert!(status.success(), "{status}: {}", guest.log());
    assert!(!wire.has_program());
    let left = fs::read_dir(&parent).expect("the cgroup").flatten();
    assert_eq!(left.filter(|it| it.path().is_dir()).count(), 0);
}

/// Too little memory is the end of the VM, not of the host, and it is said.
#[test]
fn a_guest_that_wants_more_than_its_limit_is_ended() {
    let cgroups = Cgroups::mount();
    cgroups.hand_on("+memory");
    let limits = "memory.max=48M,memory.swap.max=0,memory.oom.group=1";
    let cgroup = format!("{},{limits}", cgroups.parent().display());
    let jail = ["--user", "65534:65533", "--cgroup", &cgroup];
    let mut guest = Guest::start(&Options::new().jail(&jail));
    let status = guest.wait();
    assert_eq!(status.code(), Some(137), "{status}: {}", guest.log());
    assert!(
        guest
            .log()
            .contains("the VM in the jail was killed by signal 9"),
        "{}",
        guest.log()
    );
    let left = fs::read_dir(cgroups.parent())
        .expect("the cgroup")
        .flatten();
    assert_eq!(left.filter(|it| it.path().is_dir()).count(), 0);
}
