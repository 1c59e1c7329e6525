//! Sockets that are named by paths, and what the kernel tells of the other end of one.
//! See unix(7).

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;

use super::calls::{Decision, c_string, directory};
use super::memory::Memory;
use super::message;
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
    let slot = Slot::Argument(argument);
    match purpose {
        Use::Reach => reach(thread, registers, supervisor, &path, slot, After::Nothing),
        Use::Bind => {
            let host = supervisor.new_socket(thread, &path)?;
            name(registers, slot, &host, After::Socket(path))
        }
    }
}

/// Lets a call name a socket that is there.
pub(super) fn reach(
    thread: Pid,
    registers: &Registers,
    supervisor: &Supervisor,
    path: &[u8],
    slot: Slot,
    after: After,
) -> Result<Decision, Errno> {
    let host = supervisor.existing(thread, libc::AT_FDCWD, path, true, WRITE)?;
    name(registers, slot, &host, after)
}

fn name(registers: &Registers, slot: Slot, host: &Path, after: After) -> Result<Decision, Errno> {
    if let Some(rewrite) = slot.with_name(registers.number(), host.as_os_str().as_bytes()) {
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
        slot,
        name: name.to_owned(),
        after: Box::new(after),
    };
    Ok(Decision::Rewrite(open, After::Open(long)))
}

/// Where a call has the name of a socket.
#[derive(Debug)]
pub(super) enum Slot {
    /// In this argument, and its length in the next.
    Argument(usize),
    /// In the message that the second argument points to.
    Message(Vec<u8>),
    /// The same, of several messages.
    FirstMessage(Vec<u8>),
}

impl Slot {
    /// A call with this name, if it is not too long for one.
    fn with_name(&self, number: i64, path: &[u8]) -> Option<Rewrite> {
        let name = [&family()[..], path, b"\0"].concat();
        let length = name.len();
        let arguments = match self {
            Self::Argument(argument) => vec![
                (*argument, Value::Bytes(name)),
                (argument + 1, Value::Number(length as u64)),
            ],
            Self::Message(header) => vec![(1, Value::Message(header.clone(), name))],
            Self::FirstMessage(header) => vec![
                (1, Value::Message(header.clone(), name)),
                (2, Value::Number(1)),
            ],
        };
        (length <= FAMILY + MAX_PATH).then_some(Rewrite { number, arguments })
    }
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
    slot: Slot,
    name: OsString,
    /// What there is to do when the call with it is done.
    pub(super) after: Box<After>,
}

impl LongName {
    /// The call that is made once the directory is open.
    pub(super) fn call(&self, number: i64, directory: i64, names: &mut Names) -> Option<Rewrite> {
        let directory = format!("/proc/self/fd/{directory}/");
        let mut path = [directory.as_bytes(), self.name.as_bytes()].concat();
        if let After::Socket(bound) = &*self.after {
            path = names.unlike_others(directory.as_bytes(), self.name.as_bytes(), bound);
        }
        self.slot.with_name(number, &path)
    }
}

/// How sockets are called in the step whose names for the kernel have a descriptor, which is
/// another file soon.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Vec<u8>, Vec<u8>>,
    count: usize,
}

impl Names {
    /// As many as are remembered.
    const MOST: usize = 4096;

    /// A name that others, whose descriptor had the same number, do not have as long as there
    /// are not too many: slashes say nothing.
    fn unlike_others(&mut self, directory: &[u8], name: &[u8], bound: &[u8]) -> Vec<u8> {
        // The last byte is the end of the path.
        let room = MAX_PATH.saturating_sub(directory.len() + name.len());
        let slashes = self.count.checked_rem(room).unwrap_or_default();
        self.count += 1;
        let path = [directory, &b"/".repeat(slashes), name].concat();
        if self.known.len() >= Self::MOST {
            self.known.clear();
        }
        self.known.insert(path.clone(), bound.to_vec());
        path
    }
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

/// Lets a call be made that tells the name of a socket.
pub(super) fn ask_name(thread: Pid, registers: &Registers) -> Result<Decision, Errno> {
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    let (_, length_at) = name_arguments(registers);
    let mut room = [0; 4];
    Ok(match memory.read(length_at, &mut room) {
        Ok(()) => Decision::Ask(After::Name(u32::from_ne_bytes(room))),
        // The kernel says what is wrong with it.
        Err(_) => Decision::Pass,
    })
}

fn name_arguments(registers: &Registers) -> (u64, u64) {
    let first = match registers.number() {
        libc::SYS_recvfrom => 4,
        _ => 1,
    };
    (registers.argument(first), registers.argument(first + 1))
}

/// Corrects the path in an answer that tells the name of a socket.
pub(super) fn correct_name(
    thread: Pid,
    asked: &Registers,
    room: u32,
    names: &Names,
    supervisor: &Supervisor,
) -> Result<(), Errno> {
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    let (address, length_at) = match asked.number() {
        libc::SYS_recvmsg => {
            let name = message::name_of(&memory, asked.argument(1))?;
            (name.address, name.length_at)
        }
        _ => name_arguments(asked),
    };
    let mut length = [0; 4];
    memory.read(length_at, &mut length)?;
    let length = u32::from_ne_bytes(length);
    let Some(host) = read_path(&memory, address, length.min(room) as usize)? else {
        return Ok(());
    };
    let mut path = match names.known.get(&host) {
        Some(bound) => bound.clone(),
        None => supervisor.inside(thread, &host)?,
    };
    path.push(0);
    let length = (FAMILY + path.len()) as u32;
    path.truncate((room as usize).saturating_sub(FAMILY));
    memory.write(
        address.checked_add(FAMILY as u64).ok_or(Errno::FAULT)?,
        &path,
    )?;
    memory.write(length_at, &length.to_ne_bytes())
}

/// Reads a socket's name, if it is a path.
pub(super) fn read_path(
    memory: &Memory,
    address: u64,
    length: usize,
) -> Result<Option<Vec<u8>>, Errno> {
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
