//! Every system call that rustix does not have, and every `unsafe` of the crate.
//! What enters and leaves are safe values; nothing here decides anything.

#![expect(unsafe_code, reason = "this is the one room for it")]

mod filter;
mod landlock;
mod mount;
mod net;
mod notify;
mod process;
mod ptrace;
mod registers;
mod status;
mod tracee;
mod users;

pub(super) use filter::{Instruction, install};
pub(super) use landlock::{Access, confine_to, landlock_version, scope_to_descendants};
pub(super) use mount::set_mount_attributes;
pub(super) use net::{bind_without_port, bring_up_loopback, keep_on_loopback};
pub(super) use notify::{
    Notification, answer, give_descriptor, install_listened, is_gone, let_continue, receive,
    still_waits, wake_synchronously,
};
pub(super) use process::{
    Forked, adopt_stdin, close_others_on_exec, execve, forget_session_keyring, fork,
    fork_into_pid_namespace, reset_signals, unshare,
};
pub(super) use ptrace::{Resume, Stop, registers, resume, seize, set_registers, wait_for_stop};
pub(super) use registers::Registers;
pub(super) use status::{stat_bytes, statfs_bytes, statx_bytes};
pub(super) use tracee::{
    copy_descriptor, lock_limit, peer_of, read_memory, set_lock_limit, write_memory,
};
pub(super) use users::{use_file_rights, use_own_rights};
