//! Sockets that are named by paths, and what the kernel tells of the other end of one.
//! See unix(7).

use std::ffi::OsString;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;

use super::calls::{Decision, c_string, directory};
use super::memory::Memory;
use super::rewrite::{Rewrite, Value};
use super::state::After;
use crate::executor::supervisor::{Served, Supervisor};
use crate::executor::sys::Registers;

/// The longest path of a socket (`struct sockaddr_un`).
const MAX_PATH: usize = 108;
/// Where the path begins, after the family.
const FAMILY: usize = 2;
const WRITE: u32 = 2;

/// What a call does with a socket's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It makes the socket there.
    Bind,
    /// It speaks to who is there.
    Reach,
}

/// Decides about a call with a socket's name in an argument and its length in the next.
pub(super) fn decide(
    thread: Pid,
    registers: &Registers,
    supervisor: &Supervisor,
    argument: usize,
    purpose: Use,
) -> Result<Decision, Errno> {
    let (address, length) = (
        registers.argument(argument),
        registers.argument(argument + 1),
    );
    if !supervisor.has_network()
        && let Some(decision) = without_network(thread, registers, supervisor)?
    {
        return Ok(decision);
    }
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    let Some(path) = read_path(&memory, address, length as u32 as usize)? else {
        return Ok(Decision::Pass);
    };
    let (host, after) = match purpose {
        Use::Reach => {
            let host = supervisor.existing(thread, libc::AT_FDCWD, &path, true, WRITE)?;
            (host, After::Nothing)
        }
        Use::Bind => {
            let host = supervisor.new_socket(thread, &path)?;
            (host, After::Socket(path))
        }
    };
    if let Some(rewrite) = with_name(registers.number(), argument, &host) {
        return Ok(Decision::Rewrite(rewrite, after));
    }
    // Too long for the kernel, but not with a descriptor in front of it.
    let (Some(directory), Some(name)) = (host.parent(), host.file_name()) else {
        return Err(Errno::NAMETOOLONG);
    };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let open = Rewrite {
        number: libc::SYS_openat,
        arguments: vec![
            (0, Value::Number(libc::AT_FDCWD as u64)),
            (1, Value::Bytes(c_string(directory))),
            (2, Value::Number(flags as u64)),
        ],
    };
    let long = LongName {
        argument,
        name: name.to_owned(),
        after: Box::new(after),
    };
    Ok(Decision::Rewrite(open, After::Open(long)))
}

/// Serves what is about the internet.
fn without_network(
    thread: Pid,
    registers: &Registers,
    supervisor: &Supervisor,
) -> Result<Option<Decision>, Errno> {
    let descriptor = directory(registers.argument(0));
    let (address, length) = (registers.argument(1), registers.argument(2) as u32);
    let served = match registers.number() {
        libc::SYS_connect => supervisor.connect(thread, descriptor, address, length)?,
        libc::SYS_bind => supervisor.bind(thread, descriptor, address, length)?,
        _ if registers.argument(3) & libc::MSG_FASTOPEN as u64 != 0 => {
            return Err(Errno::OPNOTSUPP);
        }
        _ => Served::NotOurs,
    };
    Ok((served == Served::Done).then_some(Decision::Made))
}

/// The name of a socket that is reached by a descriptor of its directory.
pub(super) struct LongName {
    argument: usize,
    name: OsString,
    /// What there is to do when the call with it is done.
    pub(super) after: Box<After>,
}

impl LongName {
    /// The call that is made once the directory is open.
    pub(super) fn call(&self, number: i64, directory: i64) -> Option<Rewrite> {
        let path = Path::new("/proc/self/fd").join(directory.to_string());
        with_name(number, self.argument, &path.join(&self.name))
    }
}

/// A call with another name of a socket, if that is not too long for one.
fn with_name(number: i64, argument: usize, path: &Path) -> Option<Rewrite> {
    let mut name = family().to_vec();
    name.extend(c_string(path));
    let length = name.len();
    (length <= FAMILY + MAX_PATH).then(|| Rewrite {
        number,
        arguments: vec![
            (argument, Value::Bytes(name)),
            (argument + 1, Value::Number(length as u64)),
        ],
    })
}

/// Corrects user and group in an answer to SO_PEERCRED (`struct ucred`).
pub(super) fn name_peer(
    thread: Pid,
    asked: &Registers,
    supervisor: &Supervisor,
) -> Result<(), Errno> {
    let address = asked.argument(3);
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    let mut process = [0; 4];
    memory.read(address, &mut process)?;
    // Somebody outside of the command has no other ids than the kernel's.
    let peer = Pid::from_raw(i32::from_ne_bytes(process));
    let Some((user, group)) = peer.and_then(|peer| supervisor.ids_of(peer)) else {
        return Ok(());
    };
    let ids = [user.to_ne_bytes(), group.to_ne_bytes()].concat();
    memory.write(address.checked_add(4).ok_or(Errno::FAULT)?, &ids)
}

/// Corrects the path in an answer of getsockname or getpeername.
pub(super) fn correct_name(
    thread: Pid,
    asked: &Registers,
    supervisor: &Supervisor,
) -> Result<(), Errno> {
    let (address, length_at) = (asked.argument(1), asked.argument(2));
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    let mut length = [0; 4];
    memory.read(length_at, &mut length)?;
    let length = u32::from_ne_bytes(length) as usize;
    let Some(host) = read_path(&memory, address, length)? else {
        return Ok(());
    };
    let mut path = supervisor.inside(thread, &host)?;
    path.push(0);
    if path.len() > host.len() {
        // Not below the root.
        return Ok(());
    }
    memory.write(
        address.checked_add(FAMILY as u64).ok_or(Errno::FAULT)?,
        &path,
    )?;
    let length = (FAMILY + path.len()) as u32;
    memory.write(length_at, &length.to_ne_bytes())
}

/// Reads a socket's name, if it is a path.
fn read_path(memory: &Memory, address: u64, length: usize) -> Result<Option<Vec<u8>>, Errno> {
    if address == 0 || length <= FAMILY || length > FAMILY + MAX_PATH + 1 {
        return Ok(None);
    }
    let mut name = vec![0; length];
    memory.read(address, &mut name)?;
    let mut path = name.split_off(FAMILY);
    // A name that begins with zero is not one of a file.
    if name != family() || path.first() == Some(&0) {
        return Ok(None);
    }
    let end = path.iter().position(|byte| *byte == 0);
    path.truncate(end.unwrap_or(path.len()));
    Ok(Some(path))
}

fn family() -> [u8; FAMILY] {
    (libc::AF_UNIX as u16).to_ne_bytes()
}
