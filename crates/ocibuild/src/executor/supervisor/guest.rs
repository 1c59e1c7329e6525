//! One thread of the step that waits for the answer to a call: its memory, its
//! descriptors, its identity.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::super::sys::{self, Notification};
use super::Shared;
use super::cookie::Cookie;
use super::credentials::Credentials;

/// The longest path, with its end.
pub(super) const PATH_MAX: usize = 4096;
const PAGE: u64 = 4096;
/// How much is read at first of a string, most of which are shorter.
const USUAL_LENGTH: usize = 256;

/// A thread of the step that is stopped in a call.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Guest<'a> {
    /// What serves it.
    pub(super) shared: &'a Shared,
    /// Its thread id, as this process sees it.
    pub(in super::super) pid: i32,
    /// What it carries along.
    pub(in super::super) cookie: Cookie,
    /// The call that it waits in, unless its tracer has stopped it.
    pub(super) waits: Option<u64>,
}

impl<'a> Guest<'a> {
    /// Looks at a thread that is stopped.
    pub(super) fn of(shared: &'a Shared, pid: i32) -> Result<Self, Errno> {
        let cookie = Cookie::of(pid)?;
        Ok(Self {
            shared,
            pid,
            cookie,
            waits: None,
        })
    }

    /// Looks at a thread that waits in a call.
    pub(super) fn calling(shared: &'a Shared, call: &Notification) -> Result<Self, Errno> {
        let guest = Self {
            waits: Some(call.id),
            ..Self::of(shared, call.pid)?
        };
        guest.check_there()?;
        Ok(guest)
    }

    /// Fails if the thread was killed meanwhile, and another may have its id.
    fn check_there(&self) -> Result<(), Errno> {
        match self.waits {
            Some(id) if !sys::still_waits(self.shared.listener.as_fd(), id) => Err(Errno::SRCH),
            _ => Ok(()),
        }
    }

    /// Who it is meant to be.
    pub(in super::super) fn credentials(&self) -> Arc<Credentials> {
        self.shared.identities.get(self.cookie.credentials())
    }

    /// Makes it somebody else.
    pub(in super::super) fn become_other(&self, credentials: Credentials) -> Result<(), Errno> {
        let number = self.shared.identities.number(credentials)?;
        self.carry(self.cookie.with_credentials(number))
    }

    /// Lets it carry something else along.
    pub(in super::super) fn carry(&self, cookie: Cookie) -> Result<(), Errno> {
        if cookie == self.cookie {
            return Ok(());
        }
        self.check_there()?;
        cookie.give(self.pid, self.shared.step)
    }

    /// Reads exactly so many bytes of its memory.
    pub(in super::super) fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let length = self.read_some(address, bytes)?;
        if length == bytes.len() {
            Ok(())
        } else {
            Err(Errno::FAULT)
        }
    }

    fn read_some(&self, address: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        if self.shared.memory.is_direct() {
            match sys::read_memory(self.pid, address, bytes) {
                // A container's own filter may refuse the call.
                Err(Errno::PERM | Errno::NOSYS) => self.shared.memory.use_files(),
                other => return other,
            }
        }
        let file = self.memory_file()?;
        file.read_at(bytes, address).map_err(of_io)
    }

    /// Writes to its memory.
    pub(in super::super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.check_there()?;
        if self.shared.memory.is_direct() {
            match sys::write_memory(self.pid, address, bytes) {
                Err(Errno::PERM | Errno::NOSYS) => self.shared.memory.use_files(),
                Ok(length) if length == bytes.len() => return Ok(()),
                Ok(_) => return Err(Errno::FAULT),
                Err(errno) => return Err(errno),
            }
        }
        self.memory_file()?
            .write_all_at(bytes, address)
            .map_err(of_io)
    }

    /// Writes to its memory even where it could not itself.
    pub(super) fn overwrite(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.check_there()?;
        self.memory_file()?
            .write_all_at(bytes, address)
            .map_err(of_io)
    }

    fn memory_file(&self) -> Result<File, Errno> {
        let path = format!("{}/mem", self.pid);
        openat(
            &self.shared.proc,
            path,
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map(File::from)
    }

    /// Reads a string up to its end, which must come within `limit` bytes.
    pub(in super::super) fn string(
        &self,
        address: u64,
        limit: usize,
        too_long: Errno,
    ) -> Result<Vec<u8>, Errno> {
        let mut string = Vec::new();
        while string.len() < limit {
            let at = address
                .checked_add(string.len() as u64)
                .ok_or(Errno::FAULT)?;
            // Never into the next page before the end is known not to be in this one.
            let in_page = (PAGE - at % PAGE) as usize;
            let length = in_page.min(limit - string.len()).min(USUAL_LENGTH);
            let begun = string.len();
            string.resize(begun + length, 0);
            self.read(at, &mut string[begun..])?;
            if let Some(end) = string[begun..].iter().position(|byte| *byte == 0) {
                string.truncate(begun + end);
                return Ok(string);
            }
        }
        Err(too_long)
    }

    /// Reads a path.
    pub(in super::super) fn path(&self, address: u64) -> Result<Vec<u8>, Errno> {
        self.string(address, PATH_MAX, Errno::NAMETOOLONG)
    }

    /// Reads a number of 32 bits.
    pub(in super::super) fn read_u32(&self, address: u64) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Opens one of its descriptors, or what `cwd`, `root` or `exe` of its process are,
    /// so that it can be looked at, whatever it is.
    pub(in super::super) fn own(&self, name: &str) -> Result<OwnedFd, Errno> {
        let path = format!("{}/{name}", self.pid);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = openat(&self.shared.proc, path, flags, Mode::empty())?;
        self.check_there()?;
        Ok(file)
    }

    /// The same for a descriptor's number.
    pub(in super::super) fn descriptor(&self, number: i32) -> Result<OwnedFd, Errno> {
        self.own(&format!("fd/{number}")).map_err(|errno| {
            if errno == Errno::NOENT {
                Errno::BADF
            } else {
                errno
            }
        })
    }

    /// Gives the path of such a thing, as the kernel shows it to this process.
    pub(in super::super) fn own_path(&self, name: &str) -> Result<OsString, Errno> {
        read_link(&self.shared.proc, &format!("{}/{name}", self.pid))
    }
}

/// Reads a symbolic link.
pub(super) fn read_link(directory: impl AsFd, path: &str) -> Result<OsString, Errno> {
    let target = readlinkat(directory, path, Vec::with_capacity(USUAL_LENGTH))?;
    Ok(OsString::from_vec(CString::into_bytes(target)))
}

/// The path of an open file, as the kernel shows it to this process.
pub(super) fn path_of(file: impl AsFd) -> Result<OsString, Errno> {
    let path = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&file.as_fd())
    );
    read_link(rustix::fs::CWD, &path)
}

/// The name of an open file for calls that take no descriptor of this kind.
pub(super) fn name_of(file: impl AsFd) -> String {
    format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&file.as_fd())
    )
}

/// The error number of a failed operation.
pub(super) fn of_io(error: std::io::Error) -> Errno {
    Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Bytes as a path.
pub(super) fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
