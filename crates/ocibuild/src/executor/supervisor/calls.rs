//! Which calls are answered, in which view, and by what.

use std::collections::HashMap;

use super::super::Network;
use super::super::seccomp::{self, Action, Test, Verdict};
use super::call::{Call, Outcome};
use super::{Owners, View, attributes, change, exec, ids, make, open, reach, remove, status};

/// Answers one call.
pub(super) type Serve = fn(&Call<'_>) -> Outcome;

/// One call, when it is handed over, and who answers.
struct Row {
    name: &'static str,
    action: Action,
    serve: Serve,
    views: &'static [View],
}

const ALL: &[View] = &[View::Mounts, View::Chroot, View::Translated];

const fn row(name: &'static str, serve: Serve) -> Row {
    Row {
        name,
        action: Action::Always(Verdict::Notify),
        serve,
        views: ALL,
    }
}

const fn row_when(name: &'static str, tests: &'static [Test], serve: Serve) -> Row {
    Row {
        name,
        action: Action::When {
            tests,
            met: Verdict::Notify,
            otherwise: Verdict::Allow,
        },
        serve,
        views: ALL,
    }
}

const RLIMIT_LOCKS: u32 = 10;

const fn is(argument: u8, values: &'static [u32]) -> Test {
    Test {
        argument,
        mask: u32::MAX,
        values,
    }
}

const ROWS: &[Row] = &[
    row("getuid", ids::get_user),
    row("geteuid", ids::get_effective_user),
    row("getgid", ids::get_group),
    row("getegid", ids::get_effective_group),
    row("getresuid", ids::get_three_users),
    row("getresgid", ids::get_three_groups),
    row("getgroups", ids::get_groups),
    row("setuid", ids::set_user),
    row("setgid", ids::set_group),
    row("setreuid", ids::set_two_users),
    row("setregid", ids::set_two_groups),
    row("setresuid", ids::set_three_users),
    row("setresgid", ids::set_three_groups),
    row("setfsuid", ids::set_file_user),
    row("setfsgid", ids::set_file_group),
    row("setgroups", ids::set_groups),
    row("capget", ids::get_capabilities),
    row("capset", ids::set_capabilities),
    row("umask", ids::set_umask),
    row("stat", status::stat),
    row("lstat", status::lstat),
    row("fstat", status::fstat),
    row("newfstatat", status::fstatat),
    row("statx", status::statx),
    row("chown", change::chown),
    row("lchown", change::lchown),
    row("fchown", change::fchown),
    row("fchownat", change::fchownat),
    row("chmod", change::chmod),
    row("fchmod", change::fchmod),
    row("fchmodat", change::fchmodat),
    row("fchmodat2", change::fchmodat2),
    row("utime", change::utime),
    row("utimes", change::utimes),
    row("futimesat", change::futimesat),
    row("utimensat", change::utimensat_),
    row("mkdir", make::mkdir),
    row("mkdirat", make::mkdirat_),
    row("mknod", make::mknod),
    row("mknodat", make::mknodat_),
    row("symlink", make::symlink),
    row("symlinkat", make::symlinkat_),
    row("link", make::link),
    row("linkat", make::linkat_),
    row("unlink", remove::unlink),
    row("unlinkat", remove::unlinkat_),
    row("rmdir", remove::rmdir),
    row("rename", remove::rename),
    row("renameat", remove::renameat),
    row("renameat2", remove::renameat2),
    row("open", open::open),
    row("creat", open::creat),
    row("openat", open::openat_),
    row("openat2", open::openat2_),
    row("access", reach::access),
    row("faccessat", reach::faccessat),
    row("faccessat2", reach::faccessat2),
    row("chdir", reach::chdir),
    row("chroot", reach::chroot),
    row("truncate", reach::truncate),
    row("execve", exec::execve),
    row("execveat", exec::execveat),
    row("getxattr", attributes::get_by_path),
    row("lgetxattr", attributes::get_by_link),
    row("fgetxattr", attributes::get_by_descriptor),
    row("setxattr", attributes::set_by_path),
    row("lsetxattr", attributes::set_by_link),
    row("fsetxattr", attributes::set_by_descriptor),
    row("listxattr", attributes::list_by_path),
    row("llistxattr", attributes::list_by_link),
    row("flistxattr", attributes::list_by_descriptor),
    row("removexattr", attributes::remove_by_path),
    row("lremovexattr", attributes::remove_by_link),
    row("fremovexattr", attributes::remove_by_descriptor),
    row_when(
        "prctl",
        &[is(0, ids::PROCESS_CONTROLS)],
        ids::control_process,
    ),
    row_when("getrlimit", &[is(0, &[RLIMIT_LOCKS])], ids::get_limit),
    row_when("setrlimit", &[is(0, &[RLIMIT_LOCKS])], ids::set_limit),
    row_when("prlimit64", &[is(1, &[RLIMIT_LOCKS])], ids::change_limit),
];

/// What the filter of a step does with which call, where that is not the usual.
pub(super) fn rules(view: View, _owners: Owners, _network: Network) -> Vec<(&'static str, Action)> {
    let seen = ROWS.iter().filter(|row| row.views.contains(&view));
    seen.map(|row| (row.name, row.action)).collect()
}

/// Who answers, by the number of the call.
pub(super) fn handlers() -> HashMap<u32, Serve> {
    let numbered = |row: &Row| Some((seccomp::number(row.name)?, row.serve));
    ROWS.iter().filter_map(numbered).collect()
}
