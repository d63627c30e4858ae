//! A thread that makes a system call that it may not make, for tests: in debug builds only.
#![expect(unsafe_code, reason = "a system call that nothing else here makes")]

/// The name of a thread.
const VARIABLE: &str = "RINGWIRE_TEST_TRESPASS";

/// Makes the call `getppid`, if the environment has the calling thread's name. It is harmless where it is allowed.
pub(super) fn if_asked_to(name: &str) {
    if std::env::var_os(VARIABLE).is_some_and(|it| it == name) {
        // SAFETY: has no arguments, and only returns a number.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
}
