//! Sockets with paths where the kernel makes them: bind(2) is left to it, which knows one
//! user only, and whose the socket is meant to be is noted at the next call that comes.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, accessat, chownat, fstat, openat,
};
use rustix::io::Errno;

use super::access::{EXECUTE, WRITE};
use super::call::{Answer, Call, Outcome};
use super::guest::{Guest, name_of, os};
use super::loopback::{self, Served};
use super::{Owners, Shared};
use crate::ownership::{self, Record};

/// The longest path of a socket (`struct sockaddr_un`), and what is before it.
const MAX_PATH: u32 = 108;
const FAMILY: u32 = 2;
/// The permissions of a new socket.
const MODE: u32 = 0o777;
/// How many may be on their way at once; of one more the owner stays unknown.
const MOST: usize = 64;

/// Sockets that the kernel is about to make.
#[derive(Debug, Default)]
pub(super) struct Coming {
    any: AtomicBool,
    sockets: Mutex<Vec<Socket>>,
}

#[derive(Debug)]
struct Socket {
    /// Who makes it.
    thread: i32,
    directory: OwnedFd,
    name: Vec<u8>,
    meant: Record,
}

/// bind(2), where the kernel finds paths.
pub(super) fn bind(call: &Call<'_>) -> Outcome {
    let guest = &call.guest;
    let (address, length) = (call.long(1), call.word(2));
    if loopback::bind(guest, call.int(0), address, length)? == Served::Done {
        return super::call::DONE;
    }
    if let Some(path) = path(guest, address, length)? {
        expect(guest, &path)?;
    }
    Ok(Answer::Continue)
}

fn path(guest: &Guest<'_>, address: u64, length: u32) -> Result<Option<Vec<u8>>, Errno> {
    if length <= FAMILY || length > FAMILY + MAX_PATH {
        return Ok(None);
    }
    let mut name = vec![0; length as usize];
    guest.read(address, &mut name)?;
    let path = name.split_off(FAMILY as usize);
    let is_unix = name == (libc::AF_UNIX as u16).to_ne_bytes();
    let end = path.iter().position(|byte| *byte == 0);
    let path = path.get(..end.unwrap_or(path.len())).unwrap_or_default();
    Ok((is_unix && !path.is_empty()).then(|| path.to_vec()))
}

/// Fails where the caller may make no socket; else notes that it makes one.
fn expect(guest: &Guest<'_>, path: &[u8]) -> Result<(), super::call::Fault> {
    let (parent, name) = guest.find_parent(libc::AT_FDCWD, path)?;
    let record = guest.plan_file(&parent, FileType::Socket, MODE & !guest.cookie.umask())?;
    if guest.shared.plan.owners == Owners::Real {
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        let directory = name_of(&parent.file);
        guest.acting(|| accessat(CWD, directory, wanted, AtFlags::EACCESS))?;
    } else {
        guest.check(&guest.credentials(), &parent, WRITE | EXECUTE)?;
    }
    if guest.made(&parent, name).is_ok() {
        // The kernel says that there is something.
        return Ok(());
    }
    guest.shared.coming.add(Socket {
        thread: guest.pid,
        directory: parent.file,
        name: name.to_vec(),
        meant: record,
    });
    Ok(())
}

impl Coming {
    fn add(&self, socket: Socket) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if sockets.len() < MOST {
            sockets.push(socket);
            self.any.store(true, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// Gives sockets that have been made their owners, before `thread` is answered.
    pub(super) fn settle_sockets(&self, thread: i32) {
        if !self.coming.any.load(Ordering::Relaxed) {
            return;
        }
        let mut sockets = self
            .coming
            .sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Who calls again has made its socket, or could not.
        sockets.retain(|socket| !self.settle_socket(socket) && socket.thread != thread);
        self.coming
            .any
            .store(!sockets.is_empty(), Ordering::Relaxed);
    }

    /// Tells whether there is no more to do.
    fn settle_socket(&self, socket: &Socket) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(file) = openat(&socket.directory, os(&socket.name), flags, Mode::empty()) else {
            return false;
        };
        let is_socket = fstat(&file)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
        if is_socket {
            // It may be gone already.
            let _ = self.own_socket(&file, &socket.meant);
        }
        true
    }

    fn own_socket(&self, file: &OwnedFd, meant: &Record) -> Result<(), Errno> {
        if self.plan.owners == Owners::Recorded {
            return ownership::write(file, meant).map_err(|error| error.errno());
        }
        let (uid, gid) = (Uid::from_raw(meant.uid), Gid::from_raw(meant.gid));
        chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
    }
}
