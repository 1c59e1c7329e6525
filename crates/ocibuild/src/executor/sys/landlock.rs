//! landlock(7), used only to keep signals and abstract sockets inside.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::process::last_errno;

/// `struct landlock_ruleset_attr` as of ABI 6 (Linux 6.12).
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const SCOPE_SIGNAL: u64 = 2;

/// Lets this process and all that it starts signal only each other, and connect to
/// abstract Unix sockets of each other only. Needs CAP_SYS_ADMIN in the user namespace.
/// A kernel that is too old says NOSYS, OPNOTSUPP, TOOBIG or INVAL.
pub(in super::super) fn scope_to_descendants() -> rustix::io::Result<()> {
    let attributes = RulesetAttributes {
        handled_access_fs: 0,
        handled_access_net: 0,
        scoped: SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL,
    };
    // SAFETY: `attributes` lives across the call and its true size is passed with it.
    let made = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size_of::<RulesetAttributes>(),
            0_u32,
        )
    };
    if made < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(made as i32) };
    // SAFETY: takes a descriptor, which is open, and no memory.
    let done =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}
