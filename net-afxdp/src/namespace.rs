//! Which user namespace this process is in (user_namespaces(7)).

/// Inode number of the initial user namespace: a constant of the kernel's (`PROC_USER_INIT_INO`, `USER_NS_INIT_INO` in
/// linux/nsfs.h). An identity of user IDs (`/proc/self/uid_map`) would not tell: others can have one as well.
const INITIAL: u64 = 0xEFFF_FFFD;

/// Whether capabilities of this process count where the kernel asks for those of the initial user namespace: for
/// bpf(2), without a BPF token, and for locking memory. True also if there is no `/proc` to ask.
pub(crate) fn is_initial_user() -> bool {
    rustix::fs::stat("/proc/self/ns/user").map_or(true, |it| it.st_ino == INITIAL)
}
