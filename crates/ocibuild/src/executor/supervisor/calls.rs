//! Which calls are answered, in which view, and by what.

use std::collections::HashMap;

use super::super::seccomp::{self, Action, Test, Verdict};
use super::super::{Network, tracer};
use super::call::{Call, Outcome};
use super::{
    Owners, View, attributes, change, exec, ids, make, network, open, reach, remove, signals,
    status, unix,
};

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
const TREES: &[View] = &[View::Chroot, View::Translated];

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

/// In views without mounts, where paths, process ids and networks are not the step's own.
const fn tree_row(name: &'static str, serve: Serve) -> Row {
    Row {
        views: TREES,
        ..row(name, serve)
    }
}

const CALLER: &[Test] = &[is(0, &[0])];

/// Unless the first argument is 0, which is the caller.
const fn tree_row_of_others(name: &'static str, serve: Serve) -> Row {
    Row {
        action: Action::When {
            tests: CALLER,
            met: Verdict::Allow,
            otherwise: Verdict::Notify,
        },
        ..tree_row(name, serve)
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

/// Calls that are refused as if the kernel did not have them: programs do without.
const MISSING: &[&str] = &["getxattrat", "listxattrat", "removexattrat", "setxattrat"];

/// Calls that tell of a descriptor what the disk says; right where owners are real.
const OF_DESCRIPTORS: &[&str] = &[
    "fgetxattr",
    "flistxattr",
    "fremovexattr",
    "fsetxattr",
    "fstat",
];

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
    row("prlimit64", ids::change_limit),
    // SOL_SOCKET, SO_PEERCRED
    row_when("getsockopt", &[is(1, &[1]), is(2, &[17])], network::peer),
    Row {
        views: &[View::Mounts, View::Chroot],
        ..row("bind", unix::bind)
    },
    tree_row("uname", ids::get_names),
    tree_row("readlink", reach::readlink),
    tree_row("readlinkat", reach::readlinkat_),
    tree_row("statfs", reach::statfs),
    Row {
        views: &[View::Translated],
        ..row("getcwd", reach::getcwd)
    },
    tree_row("kill", signals::kill),
    tree_row("tkill", signals::tkill),
    tree_row("tgkill", signals::tgkill),
    tree_row("rt_sigqueueinfo", signals::to_first),
    tree_row("rt_tgsigqueueinfo", signals::to_second),
    tree_row("pidfd_open", signals::to_first),
    tree_row("process_vm_readv", signals::to_first),
    tree_row("process_vm_writev", signals::to_first),
    tree_row("ptrace", signals::trace),
    tree_row("setpriority", signals::set_priority),
    tree_row_of_others("sched_setaffinity", signals::schedule),
    tree_row_of_others("sched_setattr", signals::schedule),
    tree_row_of_others("sched_setparam", signals::schedule),
    tree_row_of_others("sched_setscheduler", signals::schedule),
    Row {
        views: TREES,
        // F_SETOWN, F_SETOWN_EX
        ..row_when("fcntl", &[is(1, &[8, 15])], signals::set_owner)
    },
];

/// A flag that lets the kernel connect in sending.
const FAST_OPEN: u32 = libc::MSG_FASTOPEN as u32;

/// Refused if an argument has [`FAST_OPEN`].
const fn without_fast_open(name: &'static str, tests: &'static [Test]) -> Row {
    Row {
        action: Action::When {
            tests,
            met: Verdict::Errno(libc::EOPNOTSUPP as u16),
            otherwise: Verdict::Allow,
        },
        ..tree_row(name, leave)
    }
}

const fn flag(argument: u8, flag: &'static [u32; 1]) -> Test {
    Test {
        argument,
        mask: flag[0],
        values: flag,
    }
}

/// Calls about sockets where there is no network. See [`super::loopback`].
const NETWORK: &[Row] = &[
    Row {
        action: Action::When {
            tests: &[is(0, &[libc::AF_UNIX as u32])],
            met: Verdict::Allow,
            otherwise: Verdict::Notify,
        },
        ..tree_row("socket", network::socket)
    },
    Row {
        action: Action::When {
            tests: &[is(0, &[libc::AF_UNIX as u32])],
            met: Verdict::Allow,
            otherwise: Verdict::Errno(libc::EOPNOTSUPP as u16),
        },
        ..tree_row("socketpair", leave)
    },
    tree_row("connect", network::connect),
    tree_row("listen", network::listen),
    without_fast_open("sendto", &[flag(3, &[FAST_OPEN])]),
    without_fast_open("sendmsg", &[flag(2, &[FAST_OPEN])]),
    without_fast_open("sendmmsg", &[flag(3, &[FAST_OPEN])]),
    Row {
        // SO_REUSEPORT, by which somebody else might share a port, and
        // TCP_FASTOPEN_CONNECT, by which connections are made later.
        action: Action::When {
            tests: &[
                is(1, &[libc::SOL_SOCKET as u32, libc::IPPROTO_TCP as u32]),
                is(
                    2,
                    &[libc::SO_REUSEPORT as u32, libc::TCP_FASTOPEN_CONNECT as u32],
                ),
            ],
            met: Verdict::Errno(libc::ENOPROTOOPT as u16),
            otherwise: Verdict::Allow,
        },
        ..tree_row("setsockopt", leave)
    },
];

/// For calls that the filter decides about.
fn leave(_: &Call<'_>) -> Outcome {
    Ok(super::call::Answer::Continue)
}

/// What the filter of a step does with which call, where that is not the usual.
pub(super) fn rules(view: View, owners: Owners, network: Network) -> Vec<(&'static str, Action)> {
    let mut rules = Vec::new();
    if view == View::Translated {
        rules.extend(tracer::RULES.iter().copied());
    }
    rules.extend(MISSING.iter().map(|name| (*name, refuse(libc::ENOSYS))));
    if view != View::Mounts {
        // Handles and watches of whole file systems know no paths of the step's.
        rules.push(("name_to_handle_at", refuse(libc::EOPNOTSUPP)));
        rules.push(("fanotify_mark", refuse(libc::EPERM)));
    }
    if owners == Owners::Real {
        let made = Action::Always(Verdict::Allow);
        rules.extend(OF_DESCRIPTORS.iter().map(|name| (*name, made)));
    }
    if owners == Owners::Real && view == View::Chroot {
        // With this flag it is nearly always about a descriptor, and a path is right.
        let by_path = Action::When {
            tests: &[Test {
                argument: 3,
                mask: libc::AT_EMPTY_PATH as u32,
                values: &[0],
            }],
            met: Verdict::Notify,
            otherwise: Verdict::Allow,
        };
        rules.push(("newfstatat", by_path));
    }
    let none: &[Row] = match network {
        Network::None => NETWORK,
        Network::Host => &[],
    };
    let seen = ROWS.iter().chain(none);
    let seen = seen.filter(|row| row.views.contains(&view));
    // The first that is found for a name counts.
    rules.extend(seen.map(|row| (row.name, row.action)));
    rules
}

const fn refuse(errno: i32) -> Action {
    Action::Always(Verdict::Errno(errno as u16))
}

/// Who answers, by the number of the call.
pub(super) fn handlers() -> HashMap<u32, Serve> {
    let numbered = |row: &Row| Some((seccomp::number(row.name)?, row.serve));
    let rows = ROWS.iter().chain(NETWORK);
    rows.filter_map(numbered).collect()
}
