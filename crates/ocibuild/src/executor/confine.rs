//! What keeps a command that has no namespaces away from the builder: a Landlock domain of
//! its own, few capabilities, no way to more, and a builder whose memory is nobody's.
//!
//! Translation of paths is no boundary, and chroot none for root. A command that gets around
//! them is stopped here: files outside of its tree are out of reach, processes outside of
//! its domain can be neither traced nor, where the kernel is new enough, signalled.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::set_no_new_privs;

use super::Network;
use super::error::{Attempt, Failure};
use super::sys::{self, Access};

/// From this version on, files can be moved between directories inside of a domain.
const ABI_WITH_MOVES: u32 = 2;
/// From this version on, TCP can be forbidden.
const ABI_WITH_TCP: u32 = 4;
/// From this version on, signals stay in a domain.
const ABI_WITH_SIGNALS: u32 = 6;

/// Confines this process to files and to itself, for good; whatever the kernel offers of it.
pub(super) fn to_files(
    files: &[(BorrowedFd<'_>, Access)],
    network: Network,
) -> Result<(), Failure> {
    set_no_new_privs(true).attempt("prctl", "PR_SET_NO_NEW_PRIVS")?;
    match sys::landlock_version() {
        Ok(version) if version >= ABI_WITH_MOVES => {
            let tcp = network == Network::Host || version < ABI_WITH_TCP;
            sys::confine_to(files, version, tcp)
                .attempt("landlock_restrict_self", "the command's files")
        }
        // Moving files between directories would fail, and nothing works without that.
        Ok(_) => Ok(()),
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).attempt("landlock_create_ruleset", "version"),
    }
}

/// Whether the kernel keeps a confined process from binding and connecting sockets of TCP.
pub(super) fn forbids_tcp() -> bool {
    sys::landlock_version().is_ok_and(|version| version >= ABI_WITH_TCP)
}

/// Says what of it the kernel does not offer; for a report.
pub(super) fn missing() -> Option<String> {
    match sys::landlock_version() {
        Ok(version) if version >= ABI_WITH_SIGNALS => None,
        Ok(version) if version >= ABI_WITH_MOVES => Some(format!(
            "Landlock ABI {version} does not confine signals (kernel 6.12 does)"
        )),
        Ok(version) => Some(format!(
            "not confined to its files: Landlock ABI {version} is too old (kernel 5.19 has 2)"
        )),
        Err(errno) => {
            let refused: Result<(), Failure> =
                Err(errno).attempt("landlock_create_ruleset", "version");
            let reason = refused.err().map(|failure| failure.to_string());
            Some(format!(
                "not confined to its files: {}",
                reason.unwrap_or_default()
            ))
        }
    }
}

/// Keeps other processes of this user from reading memory, environment and descriptors of
/// this one.
pub(super) fn hide_memory() -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).attempt("prctl", "PR_SET_DUMPABLE")
}

/// The rules for directories and files that are held open.
pub(super) fn rules(files: &[(OwnedFd, Access)]) -> Vec<(BorrowedFd<'_>, Access)> {
    use std::os::fd::AsFd;
    files
        .iter()
        .map(|(file, access)| (file.as_fd(), *access))
        .collect()
}
