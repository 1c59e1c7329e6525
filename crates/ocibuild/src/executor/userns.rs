//! User namespaces: which ids this user may have, and a namespace that has them.
//! See user_namespaces(7), subuid(5).

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::IdRange;
use super::error::{Attempt, Failure};
use super::sys::{self, Forked};

/// Where the setuid programs of shadow-utils may be.
const PROGRAM_DIRECTORIES: &[&str] = &["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];

/// Lines of `uid_map` or `gid_map`: id inside, id outside, how many.
type Map = Vec<(u32, u32, u32)>;

/// What the ids of a user namespace mean outside of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IdMaps {
    uids: Map,
    gids: Map,
    /// Who may write the maps.
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Writer {
    /// Anybody, for the one own id, if `setgroups` is given up.
    Anybody,
    /// A process with CAP_SETUID and CAP_SETGID.
    Capable,
    /// newuidmap and newgidmap, for the ranges in /etc/subuid and /etc/subgid.
    Programs,
}

impl IdMaps {
    /// Root inside is this user, and nobody else is there.
    pub(super) fn single(uid: u32, gid: u32) -> Self {
        Self {
            uids: vec![(0, uid, 1)],
            gids: vec![(0, gid, 1)],
            writer: Writer::Anybody,
        }
    }

    /// Root inside is this user, and a range follows.
    pub(super) fn range(uid: u32, gid: u32, uids: IdRange, gids: IdRange, writer: Writer) -> Self {
        Self {
            uids: vec![(0, uid, 1), (1, uids.first, uids.count)],
            gids: vec![(0, gid, 1), (1, gids.first, gids.count)],
            writer,
        }
    }
}

/// The longest range that a table such as /etc/subuid gives to a user, who may be
/// listed by name or number.
pub(super) fn longest_range(table: &str, name: Option<&str>, uid: u32) -> Option<IdRange> {
    let number = uid.to_string();
    let ranges = table.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_ours = Some(owner) == name || owner == number;
        (is_ours && count > 0 && first > 0).then_some(IdRange { first, count })
    });
    ranges.max_by_key(|range| range.count)
}

/// The name of a user.
pub(super) fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid.as_str())).then_some(name)
    })
}

/// Makes a user namespace. It lives as long as the descriptor.
///
/// A process cannot write a range of ids for itself, so a child enters the namespace
/// and waits there while its parent writes the maps.
pub(super) fn create(maps: &IdMaps) -> Result<OwnedFd, Failure> {
    let (ours, theirs) = UnixStream::pair().attempt("socketpair", "AF_UNIX")?;
    match sys::fork().attempt("fork", "the first process of the user namespace")? {
        Forked::Child => {
            drop(ours);
            hold(theirs)
        }
        Forked::Parent(pid) => {
            drop(theirs);
            let namespace = map(pid, &ours, maps);
            // Ends the child, which only waited for this.
            drop(ours);
            waitpid(Some(pid), WaitOptions::empty()).attempt("waitpid", "the child")?;
            namespace
        }
    }
}

/// The child: enters a namespace, says with which error number, and waits.
fn hold(mut parent: UnixStream) -> ! {
    let result = sys::unshare(UnshareFlags::NEWUSER);
    let errno = result.err().map_or(0, |errno| errno.raw_os_error());
    if parent.write_all(&errno.to_le_bytes()).is_ok() {
        // Returns when the parent closes its end.
        let _ = parent.read(&mut [0]);
    }
    std::process::exit(0)
}

/// The parent: gives ids to the namespace that the child is in, and opens it.
fn map(child: Pid, mut socket: &UnixStream, maps: &IdMaps) -> Result<OwnedFd, Failure> {
    let mut errno = [0; 4];
    socket
        .read_exact(&mut errno)
        .attempt("read", "the child's answer")?;
    match i32::from_le_bytes(errno) {
        0 => {}
        errno => {
            let (call, subject) = ("unshare".into(), "CLONE_NEWUSER".into());
            return Err(Failure::System {
                call,
                subject,
                errno,
            });
        }
    }
    match maps.writer {
        Writer::Programs => {
            run_mapper("newuidmap", child, &maps.uids)?;
            run_mapper("newgidmap", child, &maps.gids)?;
        }
        Writer::Anybody | Writer::Capable => {
            if maps.writer == Writer::Anybody {
                write_proc(child, "setgroups", "deny")?;
            }
            write_proc(child, "uid_map", &lines(&maps.uids))?;
            write_proc(child, "gid_map", &lines(&maps.gids))?;
        }
    }
    let path = format!("/proc/{child}/ns/user");
    fs::File::open(&path)
        .map(OwnedFd::from)
        .attempt("open", path)
}

/// Writes a file of the child's process directory in one go, as the kernel demands.
fn write_proc(child: Pid, file: &str, text: &str) -> Result<(), Failure> {
    let path = format!("/proc/{child}/{file}");
    fs::write(&path, text).attempt(
        "write",
        format_args!("{:?} to /proc/PID/{file}", text.trim_end()),
    )
}

fn lines(map: &Map) -> String {
    map.iter()
        .map(|(inside, outside, count)| format!("{inside} {outside} {count}\n"))
        .collect()
}

fn run_mapper(name: &str, child: Pid, map: &Map) -> Result<(), Failure> {
    let failed = |message| Failure::Program {
        program: name.to_owned(),
        message,
    };
    let mut places = PROGRAM_DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name));
    let Some(program) = places.find(|path| path.exists()) else {
        return Err(failed(
            "not installed (package uidmap or shadow-utils)".into(),
        ));
    };
    let numbers = map
        .iter()
        .flat_map(|(inside, outside, count)| [inside, outside, count]);
    let output = Command::new(program)
        .arg(child.to_string())
        .args(numbers.map(u32::to_string))
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{} ({})", said.trim(), output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_range_of_the_user_counts() {
        let table = "other:1000:9999\nme:100000:65536\nme:300000:100000\n1000:5:6\nme:x:1\n";
        let found = |name, uid| longest_range(table, name, uid).map(|r| (r.first, r.count));
        assert_eq!(found(Some("me"), 1000), Some((300_000, 100_000)));
        assert_eq!(found(None, 1000), Some((5, 6)));
        assert_eq!(found(Some("you"), 77), None);
        assert_eq!(
            longest_range("me:0:5\nme:7:0\n", Some("me"), 1),
            None,
            "root is nobody's"
        );
    }

    #[test]
    fn users_have_names() {
        let passwd = "root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:\n";
        assert_eq!(name_of(passwd, 1000), Some("me"));
        assert_eq!(name_of(passwd, 1), None);
    }
}
