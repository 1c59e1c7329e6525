//! The calls that make names: directories, nodes, links.

use std::sync::LazyLock;

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use super::access::{self, EXECUTE, WRITE};
use super::call::{Answer, Call, DONE, Fault, Outcome};
use super::credentials::cap;
use super::guest::{Guest, name_of, os};
use super::resolve::{Follow, Found};
use super::{Owners, owners};
use crate::ownership::{Device, Record};

/// mkdir(2).
pub(super) fn mkdir(call: &Call<'_>) -> Outcome {
    make_directory(call, libc::AT_FDCWD, &call.path(0)?, call.word(1))
}

/// mkdirat(2).
pub(super) fn mkdirat_(call: &Call<'_>) -> Outcome {
    make_directory(call, call.int(0), &call.path(1)?, call.word(2))
}

fn make_directory(call: &Call<'_>, directory: i32, path: &[u8], mode: u32) -> Outcome {
    let guest = &call.guest;
    let (parent, name) = guest.find_parent(directory, path)?;
    let mode = mode & 0o1777 & !guest.cookie.umask();
    let record = guest.plan_file(&parent, FileType::Directory, mode)?;
    if guest.leaves_to_kernel(&parent, &record) {
        return Ok(Answer::Continue);
    }
    let on_disk = Mode::from_raw_mode(guest.disk_mode(&record, FileType::Directory));
    guest.acting(|| mkdirat(&parent.file, os(name), on_disk))?;
    guest.settle(&parent, name, &record)
}

/// mknod(2).
pub(super) fn mknod(call: &Call<'_>) -> Outcome {
    make_node(
        call,
        libc::AT_FDCWD,
        &call.path(0)?,
        call.word(1),
        call.long(2),
    )
}

/// mknodat(2).
pub(super) fn mknodat_(call: &Call<'_>) -> Outcome {
    make_node(
        call,
        call.int(0),
        &call.path(1)?,
        call.word(2),
        call.long(3),
    )
}

fn make_node(call: &Call<'_>, directory: i32, path: &[u8], mode: u32, device: u64) -> Outcome {
    let guest = &call.guest;
    let kind = match mode & libc::S_IFMT {
        0 => FileType::RegularFile,
        bits => FileType::from_raw_mode(bits),
    };
    // A program passes 32 bits: both numbers are in them.
    let device = u64::from(device as u32);
    let (major, minor) = (libc::major(device), libc::minor(device));
    let device = match kind {
        FileType::CharacterDevice => Some(Device::Char(major, minor)),
        FileType::BlockDevice => Some(Device::Block(major, minor)),
        FileType::RegularFile | FileType::Fifo | FileType::Socket => None,
        _ => return Err(Errno::INVAL.into()),
    };
    if device.is_some() && !guest.credentials().can(cap::MKNOD) {
        return Err(Errno::PERM.into());
    }
    let (parent, name) = guest.find_parent(directory, path)?;
    let mode = mode & 0o7777 & !guest.cookie.umask();
    let record = Record {
        device,
        ..guest.plan_file(&parent, kind, mode)?
    };
    if guest.leaves_to_kernel(&parent, &record) {
        return Ok(Answer::Continue);
    }
    let stands_for = guest.shared.plan.owners == Owners::Recorded && device.is_some();
    let made_as = if stands_for {
        FileType::RegularFile
    } else {
        kind
    };
    let number = if stands_for {
        0
    } else {
        rustix::fs::makedev(major, minor)
    };
    let on_disk = Mode::from_raw_mode(guest.disk_mode(&record, made_as));
    guest.acting(|| make_node_at(&parent, name, made_as, on_disk, number))?;
    if stands_for {
        guest.shared.note_device();
    }
    guest.settle(&parent, name, &record)
}

fn make_node_at(
    parent: &Found,
    name: &[u8],
    kind: FileType,
    mode: Mode,
    device: Dev,
) -> Result<(), Errno> {
    if kind == FileType::RegularFile {
        // The kernel would not let everybody make one by mknod in older versions.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        return openat(&parent.file, os(name), flags, mode).map(drop);
    }
    mknodat(&parent.file, os(name), kind, mode, device)
}

/// symlink(2).
pub(super) fn symlink(call: &Call<'_>) -> Outcome {
    make_link(call, &call.path(0)?, libc::AT_FDCWD, &call.path(1)?)
}

/// symlinkat(2).
pub(super) fn symlinkat_(call: &Call<'_>) -> Outcome {
    make_link(call, &call.path(0)?, call.int(1), &call.path(2)?)
}

fn make_link(call: &Call<'_>, target: &[u8], directory: i32, path: &[u8]) -> Outcome {
    let guest = &call.guest;
    let (parent, name) = guest.find_parent(directory, path)?;
    let record = guest.plan_file(&parent, FileType::Symlink, 0o777)?;
    if guest.leaves_to_kernel(&parent, &record) {
        return Ok(Answer::Continue);
    }
    guest.acting(|| symlinkat(os(target), &parent.file, os(name)))?;
    guest.settle(&parent, name, &record)
}

/// link(2).
pub(super) fn link(call: &Call<'_>) -> Outcome {
    let (old, new) = (call.path(0)?, call.path(1)?);
    make_name(call, (libc::AT_FDCWD, &old), (libc::AT_FDCWD, &new), 0)
}

/// linkat(2).
pub(super) fn linkat_(call: &Call<'_>) -> Outcome {
    let (old, new) = (call.path(1)?, call.path(3)?);
    make_name(call, (call.int(0), &old), (call.int(2), &new), call.int(4))
}

fn make_name(call: &Call<'_>, old: (i32, &[u8]), new: (i32, &[u8]), flags: i32) -> Outcome {
    let guest = &call.guest;
    let (parent, name) = guest.find_parent(new.0, new.1)?;
    guest.check_change(&parent)?;
    let who = guest.credentials();
    let is_anybodys = who.can(cap::FOWNER) || !links_are_protected();
    if guest.kernel_can() && is_anybodys {
        return Ok(Answer::Continue);
    }
    // Not left to the kernel in a tree: the other file may be anywhere.
    let found = if old.1.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        guest.find_open(old.0)?
    } else if flags & libc::AT_SYMLINK_FOLLOW != 0 {
        guest.find(old.0, old.1, Follow::Yes)?
    } else {
        guest.find(old.0, old.1, Follow::No)?
    };
    let seen = guest.look(&found)?;
    let kind = owners::kind(&seen);
    if kind == FileType::Directory {
        return Err(Errno::PERM.into());
    }
    if !is_anybodys {
        access::check_link(&who, &seen.meant(), kind)?;
    }
    if guest.kernel_can() {
        return Ok(Answer::Continue);
    }
    found.check_writable()?;
    linkat(
        CWD,
        name_of(&found.file),
        &parent.file,
        os(name),
        AtFlags::SYMLINK_FOLLOW,
    )?;
    DONE
}

/// Whether the machine lets users link only to files of theirs; as it was when that was asked
/// first.
fn links_are_protected() -> bool {
    static PROTECTED: LazyLock<bool> = LazyLock::new(|| {
        let value = std::fs::read("/proc/sys/fs/protected_hardlinks");
        value.is_ok_and(|value| value.starts_with(b"1"))
    });
    *PROTECTED
}

/// Whether a file is what one is that root makes and of which nothing is recorded.
fn is_roots(record: &Record) -> bool {
    (record.uid, record.gid) == (0, 0)
        && record.device.is_none()
        && record.mode & access::SET_GROUP == 0
}

impl Guest<'_> {
    /// Whether the kernel makes a file in a directory as it should be.
    pub(super) fn leaves_to_kernel(&self, directory: &Found, record: &Record) -> bool {
        let is_right = self.shared.plan.owners == Owners::Real || is_roots(record);
        is_right && self.kernel_takes(directory)
    }

    /// Fails unless names may be made in and removed from a directory.
    pub(super) fn check_change(&self, directory: &Found) -> Result<(), Fault> {
        directory.check_writable()?;
        let who = self.credentials();
        if who.can(cap::DAC_OVERRIDE) || self.shared.plan.owners == Owners::Real {
            return Ok(());
        }
        self.check(&who, directory, WRITE | EXECUTE)
    }

    /// What a file becomes that the step makes in a directory, if it may.
    pub(super) fn plan_file(
        &self,
        directory: &Found,
        kind: FileType,
        mode: u32,
    ) -> Result<Record, Fault> {
        self.check_change(directory)?;
        let above = self.look(directory)?.meant();
        Ok(access::new_file(&self.credentials(), &above, kind, mode))
    }

    /// The permissions with which the kernel makes it.
    pub(super) fn disk_mode(&self, record: &Record, kind: FileType) -> u32 {
        match self.shared.plan.owners {
            Owners::Recorded => record.disk_mode(kind.as_raw_mode()).unwrap_or(record.mode),
            Owners::Real => record.mode,
        }
    }

    /// Says whose a file is that was just made.
    fn settle(&self, directory: &Found, name: &[u8], record: &Record) -> Outcome {
        if self.shared.plan.owners == Owners::Recorded {
            let made = self.made(directory, name)?;
            crate::ownership::write_new(&made.file, record)?;
        }
        DONE
    }
}
