//! What the tracer asks of a supervisor: where on the machine a path of the step leads,
//! and what a program is.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, statat};
use rustix::io::Errno;
use rustix::process::Pid;

use super::Supervisor;
use super::access::{EXECUTE, WRITE};
use super::call::Fault;
use super::guest::{Guest, name_of, path_of};
use super::resolve::{Follow, Found};
use crate::ownership::Record;

/// A file that the step executes.
#[derive(Debug)]
pub(in super::super) struct Program {
    /// It, open for reading.
    pub(in super::super) file: File,
    /// Where it is on the machine, if it has a place.
    pub(in super::super) path: Option<PathBuf>,
    found: Found,
}

impl Supervisor {
    /// Finds a program; `flags` are those of execveat.
    pub(in super::super) fn program(
        &self,
        thread: Pid,
        at: i32,
        path: &[u8],
        flags: i32,
    ) -> Result<Program, Errno> {
        let guest = self.guest_of(thread)?;
        let found = guest.find_at(at, path, flags).map_err(errno)?;
        let who = guest.credentials();
        let stat = fstat(&found.file)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        if kind != FileType::RegularFile {
            return Err(Errno::ACCESS);
        }
        guest.check(&who, &found, EXECUTE).map_err(errno)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(name_of(&found.file), flags, Mode::empty())?;
        let path = place_of(&found)?;
        Ok(Program {
            file: file.into(),
            path,
            found,
        })
    }

    /// A thread is another program now and has not run an instruction of it.
    pub(in super::super) fn became(&self, thread: Pid, program: &Program) -> Result<(), Errno> {
        let guest = self.guest_of(thread)?;
        guest.begin_program(&program.found).map_err(errno)
    }

    /// Where a directory is that a thread is going to be in.
    pub(in super::super) fn directory(&self, thread: Pid, path: &[u8]) -> Result<PathBuf, Errno> {
        let guest = self.guest_of(thread)?;
        let found = guest
            .find(libc::AT_FDCWD, path, Follow::Yes)
            .map_err(errno)?;
        let who = guest.credentials();
        guest.check(&who, &found, EXECUTE).map_err(errno)?;
        place_of(&found)?.ok_or(Errno::NOENT)
    }

    /// Where something is that is there.
    pub(in super::super) fn existing(
        &self,
        thread: Pid,
        at: i32,
        path: &[u8],
        follow: bool,
        wanted: u32,
    ) -> Result<PathBuf, Errno> {
        let guest = self.guest_of(thread)?;
        let follow = if follow { Follow::Yes } else { Follow::No };
        let found = guest.find(at, path, follow).map_err(errno)?;
        let who = guest.credentials();
        guest.check(&who, &found, wanted).map_err(errno)?;
        place_of(&found)?.ok_or(Errno::NOENT)
    }

    /// Where a socket is going to be.
    pub(in super::super) fn new_socket(&self, thread: Pid, path: &[u8]) -> Result<PathBuf, Errno> {
        let guest = self.guest_of(thread)?;
        let (parent, name) = guest.find_parent(libc::AT_FDCWD, path).map_err(errno)?;
        let who = guest.credentials();
        guest.check(&who, &parent, WRITE | EXECUTE).map_err(errno)?;
        parent.check_writable()?;
        let directory = place_of(&parent)?.ok_or(Errno::NOENT)?;
        Ok(directory.join(OsStr::from_bytes(name)))
    }

    /// A thread has made a socket there.
    pub(in super::super) fn made_socket(&self, thread: Pid, path: &[u8]) -> Result<(), Errno> {
        let guest = self.guest_of(thread)?;
        let (parent, name) = guest.find_parent(libc::AT_FDCWD, path).map_err(errno)?;
        let who = guest.credentials();
        let found = guest.made(&parent, name)?;
        let stat = fstat(&found.file)?;
        let record = Record {
            uid: who.uid.files,
            gid: who.gid.files,
            mode: stat.st_mode & 0o7777,
            device: None,
        };
        match guest.change(&found, &record) {
            Ok(()) => Ok(()),
            Err(fault) => Err(errno(fault)),
        }
    }

    /// User and group of another process, as the step sees them.
    pub(in super::super) fn ids_of(&self, process: Pid) -> Option<(u32, u32)> {
        let who = self.guest_of(process).ok()?.credentials();
        Some((who.uid.effective, who.gid.effective))
    }

    /// A path of the machine as the step sees it.
    pub(in super::super) fn inside(&self, thread: Pid, path: &[u8]) -> Result<Vec<u8>, Errno> {
        Ok(self.guest_of(thread)?.inside(path))
    }

    /// Whether calls with this number are answered.
    pub(in super::super) fn answers(&self, number: i64) -> bool {
        u32::try_from(number).is_ok_and(|number| self.shared.handlers.contains_key(&number))
    }

    fn guest_of(&self, thread: Pid) -> Result<Guest<'_>, Errno> {
        Guest::of(&self.shared, thread.as_raw_nonzero().get())
    }
}

/// The path of a file on the machine, if there still is one that leads to it.
fn place_of(found: &Found) -> Result<Option<PathBuf>, Errno> {
    let path = path_of(&found.file)?;
    if !path.as_bytes().starts_with(b"/") {
        return Ok(None);
    }
    let file = fstat(&found.file)?;
    let there = statat(rustix::fs::CWD, &path, AtFlags::SYMLINK_NOFOLLOW);
    let is_it = there.is_ok_and(|there| (there.st_dev, there.st_ino) == (file.st_dev, file.st_ino));
    Ok(is_it.then(|| PathBuf::from(path)))
}

fn errno(fault: Fault) -> Errno {
    match fault {
        Fault::Errno(errno) => errno,
        // With translated paths the kernel never knows better.
        Fault::Continue => Errno::ACCESS,
    }
}
