//! What is done about a call at which a thread stops: which of its arguments name files,
//! and what they become.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;

use super::memory::Memory;
use super::rewrite::{Rewrite, Value};
use super::{Executed, Guest};
use crate::executor::sys::Registers;

/// Most of a socket's name (`struct sockaddr_un`).
const MAX_SOCKET_NAME: usize = 108;
const SOCKET_FAMILY: usize = 2;

/// What is done about a call.
pub(super) enum Decision {
    /// It is made as it is.
    Pass,
    /// It is made with other arguments.
    Rewrite(Rewrite),
    /// The thread becomes another program.
    Execute(Rewrite, Executed),
    /// It is made, and tells who is at the other end of a socket.
    Peer,
}

/// A call with a path that the kernel has to walk itself, since what comes of it belongs to
/// the thread: a directory to be in, a descriptor that nobody can hand over.
struct PathCall {
    number: i64,
    /// Argument with the directory that the path begins at.
    at: Option<usize>,
    /// Argument with the path.
    path: usize,
    /// Argument with flags, and the flag that keeps a link at the end from being followed.
    no_follow: Option<(usize, u64)>,
}

const fn call(
    number: i64,
    at: Option<usize>,
    path: usize,
    no_follow: Option<(usize, u64)>,
) -> PathCall {
    PathCall {
        number,
        at,
        path,
        no_follow,
    }
}

const O_NOFOLLOW: u64 = libc::O_NOFOLLOW as u64;
const IN_DONT_FOLLOW: u64 = libc::IN_DONT_FOLLOW as u64;

const PATH_CALLS: &[PathCall] = &[
    call(libc::SYS_chdir, None, 0, None),
    call(libc::SYS_openat, Some(0), 1, Some((2, O_NOFOLLOW))),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_open, None, 0, Some((1, O_NOFOLLOW))),
    call(
        libc::SYS_inotify_add_watch,
        None,
        1,
        Some((2, IN_DONT_FOLLOW)),
    ),
];

/// Calls that others answer in a command, for tests of the tracer alone.
#[cfg(all(test, target_arch = "x86_64"))]
const TEST_CALLS: &[PathCall] = &[
    call(libc::SYS_stat, None, 0, None),
    call(libc::SYS_lstat, None, 0, Some((0, u64::MAX))),
    call(libc::SYS_newfstatat, Some(0), 1, Some((3, 0x100))),
    call(libc::SYS_statx, Some(0), 1, Some((2, 0x100))),
    call(libc::SYS_access, None, 0, None),
    call(libc::SYS_faccessat, Some(0), 1, None),
    call(libc::SYS_faccessat2, Some(0), 1, None),
    call(libc::SYS_readlink, None, 0, Some((0, u64::MAX))),
    call(libc::SYS_readlinkat, Some(0), 1, Some((0, u64::MAX))),
    call(libc::SYS_unlink, None, 0, Some((0, u64::MAX))),
    call(libc::SYS_unlinkat, Some(0), 1, Some((0, u64::MAX))),
    call(libc::SYS_mkdir, None, 0, None),
    call(libc::SYS_rmdir, None, 0, None),
    call(libc::SYS_chmod, None, 0, None),
    call(libc::SYS_statfs, None, 0, None),
];

/// Decides about a call of a thread, other than one that executes a program.
pub(super) fn decide(
    thread: Pid,
    registers: &Registers,
    guest: &impl Guest,
) -> Result<Decision, Errno> {
    match registers.number() {
        libc::SYS_connect => socket(thread, registers, guest, 1, true),
        libc::SYS_bind => socket(thread, registers, guest, 1, false),
        libc::SYS_sendto => socket(thread, registers, guest, 4, true),
        libc::SYS_getsockopt => Ok(Decision::Peer),
        number => match path_calls().find(|call| call.number == number) {
            Some(call) => path(thread, registers, guest, call),
            None => Ok(Decision::Pass),
        },
    }
}

#[cfg(not(all(test, target_arch = "x86_64")))]
fn path_calls() -> impl Iterator<Item = &'static PathCall> {
    PATH_CALLS.iter()
}

#[cfg(all(test, target_arch = "x86_64"))]
fn path_calls() -> impl Iterator<Item = &'static PathCall> {
    PATH_CALLS.iter().chain(TEST_CALLS)
}

fn path(
    thread: Pid,
    registers: &Registers,
    guest: &impl Guest,
    call: &PathCall,
) -> Result<Decision, Errno> {
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    let path = memory.path(registers.argument(call.path))?;
    let at = call.at.map(|index| directory(registers.argument(index)));
    let follow = call
        .no_follow
        .is_none_or(|(index, flag)| flag != u64::MAX && registers.argument(index) & flag == 0);
    let host = guest.locate(thread, at.unwrap_or(libc::AT_FDCWD), &path, follow)?;
    Ok(Decision::Rewrite(Rewrite {
        number: call.number,
        arguments: vec![(call.path, Value::Bytes(c_string(&host)))],
    }))
}

/// A call with the name of a socket, which may be a path.
fn socket(
    thread: Pid,
    registers: &Registers,
    guest: &impl Guest,
    argument: usize,
    follow: bool,
) -> Result<Decision, Errno> {
    let (address, length) = (
        registers.argument(argument),
        registers.argument(argument + 1),
    );
    let length = length as u32 as usize;
    if address == 0 || length <= SOCKET_FAMILY || length > SOCKET_FAMILY + MAX_SOCKET_NAME {
        return Ok(Decision::Pass);
    }
    let mut name = vec![0; length];
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    memory.read(address, &mut name)?;
    let (family, path) = name.split_at(SOCKET_FAMILY);
    let is_unix = family == (libc::AF_UNIX as u16).to_ne_bytes();
    // A name that begins with zero is not one of a file.
    if !is_unix || path.first() == Some(&0) {
        return Ok(Decision::Pass);
    }
    let end = path.iter().position(|byte| *byte == 0);
    let path = path.get(..end.unwrap_or(path.len())).unwrap_or_default();
    let host = guest.locate(thread, libc::AT_FDCWD, path, follow)?;
    let mut name = family.to_vec();
    name.extend(c_string(&host));
    let length = name.len() as u64;
    if name.len() > SOCKET_FAMILY + MAX_SOCKET_NAME {
        return Err(Errno::NAMETOOLONG);
    }
    Ok(Decision::Rewrite(Rewrite {
        number: registers.number(),
        arguments: vec![
            (argument, Value::Bytes(name)),
            (argument + 1, Value::Number(length)),
        ],
    }))
}

/// The descriptor in an argument, of which the kernel takes the lower half.
pub(super) fn directory(argument: u64) -> i32 {
    argument as u32 as i32
}

/// The path with its end.
pub(super) fn c_string(path: &Path) -> Vec<u8> {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    bytes.push(0);
    bytes
}
