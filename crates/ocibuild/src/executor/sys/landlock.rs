//! landlock(7): which files a command may reach at all, and that its signals and
//! connections to abstract sockets stay inside.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::process::last_errno;

/// `struct landlock_ruleset_attr` as of ABI 6 (Linux 6.12).
#[repr(C)]
#[derive(Default)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const SCOPE_SIGNAL: u64 = 2;
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

// Rights, and the version of the ABI that has them.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const OF_ABI_1: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Binding to a port of TCP, and connecting to one (ABI 4).
const TCP: u64 = 3;
/// Those that can be given for a file; the others are for directories.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

/// What may be done below a directory, or with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Access {
    /// Anything.
    All,
    /// Reading and executing.
    Read,
}

/// Gives the version of the interface that the kernel has; an error if it has none, or
/// it is turned off.
pub(in super::super) fn landlock_version() -> rustix::io::Result<u32> {
    // SAFETY: with this flag the call takes no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<RulesetAttributes>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| last_errno())
}

/// Lets this process and all that it starts signal only each other, and connect to
/// abstract Unix sockets of each other only. Needs CAP_SYS_ADMIN in the user namespace.
/// A kernel that is too old says NOSYS, OPNOTSUPP, TOOBIG or INVAL.
pub(in super::super) fn scope_to_descendants() -> rustix::io::Result<()> {
    let ruleset = create(&RulesetAttributes {
        scoped: SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL,
        ..RulesetAttributes::default()
    })?;
    restrict(&ruleset)
}

/// Lets this process and all that it starts reach these files only, trace only each other,
/// and where the kernel can, signal only each other. Without `tcp` no socket of that is
/// bound or connected any more, by them. Needs `no_new_privs`, or CAP_SYS_ADMIN in the user
/// namespace.
pub(in super::super) fn confine_to(
    files: &[(BorrowedFd<'_>, Access)],
    version: u32,
    tcp: bool,
) -> rustix::io::Result<()> {
    let mut handled = OF_ABI_1;
    for (first, right) in [(2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)] {
        if version >= first {
            handled |= right;
        }
    }
    let scoped = if version >= 6 {
        SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL
    } else {
        0
    };
    let ruleset = create(&RulesetAttributes {
        handled_access_fs: handled,
        handled_access_net: if tcp { 0 } else { TCP },
        scoped,
    })?;
    for (file, access) in files {
        let access = match access {
            Access::All => handled,
            Access::Read => EXECUTE | READ_FILE | READ_DIR,
        };
        let stat = rustix::fs::fstat(file)?;
        let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let access = if is_directory {
            access
        } else {
            access & OF_FILES
        };
        allow(&ruleset, file.as_fd(), access)?;
    }
    restrict(&ruleset)
}

fn create(attributes: &RulesetAttributes) -> rustix::io::Result<OwnedFd> {
    // The kernel knows versions of the structure by their size, and refuses a longer one
    // only if what it does not know is not zero.
    // SAFETY: `attributes` lives across the call and its true size is passed with it.
    let made = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(attributes),
            size_of::<RulesetAttributes>(),
            0_u32,
        )
    };
    if made < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(made as i32) })
}

fn allow(ruleset: &OwnedFd, file: BorrowedFd<'_>, access: u64) -> rustix::io::Result<()> {
    let rule = PathBeneath {
        allowed_access: access,
        parent_fd: file.as_raw_fd(),
    };
    // SAFETY: the kernel reads one such structure, which lives across the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    };
    match last_errno_if(done < 0) {
        // Pipes and files in memory are in no tree and need no rule.
        Err(Errno::BADFD) => Ok(()),
        other => other,
    }
}

fn restrict(ruleset: &OwnedFd) -> rustix::io::Result<()> {
    // SAFETY: takes a descriptor, which is open, and no memory.
    let done =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    last_errno_if(done < 0)
}

fn last_errno_if(failed: bool) -> rustix::io::Result<()> {
    if failed { Err(last_errno()) } else { Ok(()) }
}
