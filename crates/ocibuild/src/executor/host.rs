//! What of this machine decides about engines, for a report: read, never acted on.

use std::fs;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use rustix::process::{getegid, geteuid};
use rustix::system::uname;
use rustix::thread::{capabilities, no_new_privs};

use super::init::in_user_namespace;
use super::sys;

/// File systems by the number that statfs(2) gives.
const FILE_SYSTEMS: &[(i64, &str)] = &[
    (0x0102_1994, "tmpfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x5846_5342, "xfs"),
    (0x6969, "nfs"),
    (0x794c_7630, "overlay"),
    (0x9123_683e, "btrfs"),
    (0xef53, "ext"),
    (0xf15f, "ecryptfs"),
    (0x6573_5546, "fuse"),
];

/// Describes the process and the machine: names and values.
pub(super) fn describe(work_dir: &Path) -> Vec<(&'static str, String)> {
    let machine = uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let ids = format!("{}:{}", geteuid().as_raw(), getegid().as_raw());
    vec![
        ("kernel", text(machine.release())),
        ("machine", text(machine.machine())),
        ("user", ids),
        ("user namespace", user_namespace()),
        ("capabilities", held()),
        ("no new privileges", known(no_new_privs())),
        ("seccomp", status_field("Seccomp")),
        ("security module", security_module()),
        ("landlock", landlock()),
        (
            "user namespaces",
            limit("/proc/sys/user/max_user_namespaces"),
        ),
        (
            "yama ptrace scope",
            limit("/proc/sys/kernel/yama/ptrace_scope"),
        ),
        ("processes", limit("/sys/fs/cgroup/pids.max")),
        ("work directory", file_system(work_dir)),
    ]
}

fn known<T: ToString, E: ToString>(value: Result<T, E>) -> String {
    match value {
        Ok(value) => value.to_string(),
        Err(error) => error.to_string(),
    }
}

fn user_namespace() -> String {
    if in_user_namespace() {
        "one of its own".to_owned()
    } else {
        "that of the machine".to_owned()
    }
}

fn held() -> String {
    match capabilities(None) {
        Ok(sets) if sets.effective.is_empty() => "none".to_owned(),
        Ok(sets) => format!("{:016x}", sets.effective.bits()),
        Err(errno) => errno.to_string(),
    }
}

/// A line of this process's status: whether it is filtered already, and how.
fn status_field(name: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    match value.map(str::trim) {
        Some("0") => "no filter".to_owned(),
        Some("2") => "filtered".to_owned(),
        Some(other) => other.to_owned(),
        None => "unknown".to_owned(),
    }
}

fn security_module() -> String {
    let label = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    match label.trim_end_matches(['\0', '\n']) {
        "" => "none".to_owned(),
        label => label.to_owned(),
    }
}

fn landlock() -> String {
    match sys::landlock_version() {
        Ok(version) => format!("ABI {version}"),
        Err(errno) => format!("landlock_create_ruleset: {errno}"),
    }
}

fn limit(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(value) => value.trim().to_owned(),
        Err(_) => "not limited".to_owned(),
    }
}

fn file_system(path: &Path) -> String {
    let kind = match statfs(path) {
        Ok(found) => FILE_SYSTEMS
            .iter()
            .find(|(number, _)| *number == found.f_type as i64)
            .map_or_else(
                || format!("file system {:x}", found.f_type),
                |(_, name)| (*name).to_owned(),
            ),
        Err(errno) => format!("statfs: {errno}"),
    };
    let is_noexec =
        statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::NOEXEC));
    if is_noexec {
        format!("{kind}, noexec")
    } else {
        kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_says_something() {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in describe(dir.path()) {
            assert!(
                !value.is_empty() && !value.contains('\n'),
                "{name}: {value:?}"
            );
        }
    }
}
