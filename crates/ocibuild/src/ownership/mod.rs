//! Owners, modes, devices and attributes that the disk cannot hold, kept on the inode.
//!
//! A process without rights can make files of one owner only. What a file is meant to
//! be is written beside it, where it survives renames, hard links, overlayfs copy-up and
//! the next step, and goes with the inode:
//!
//! ```text
//! regular file, directory   user.ocibuild.inode           a Record, see `record`
//!                           user.ocibuild.xattr.NAME      the value of attribute NAME
//! symbolic link, pipe,      access time in the far        user and group, see `stamp`;
//! socket                    future                        the mode is the disk's
//! device                    an empty regular file whose record names the device
//! ```
//!
//! A file without a record belongs to 0:0 and has the mode of the disk. With a record
//! the disk's mode leaves the owner what a program of the builder needs to enter, read
//! and write it, and never has set-id bits. None of this reaches a layer.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, XattrFlags, chmod, fstat, openat, utimensat,
};
use rustix::io::Errno;

mod attributes;
mod calls;
mod error;
mod probe;
mod record;
mod stamp;
#[cfg(test)]
mod tests;

pub use attributes::{
    attribute, attribute_names, is_ours, remove_attribute, set_attribute, shown_name,
};
pub(crate) use calls::growing;
pub use error::Error;
pub use probe::probe;
pub use record::{Device, Record};

/// The attribute that holds a [`Record`].
pub const INODE: &str = "user.ocibuild.inode";

/// What the disk says of a file, and what it is meant to be.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// What the disk says.
    pub stat: Stat,
    /// What was recorded, if anything was.
    pub record: Option<Record>,
}

impl Seen {
    /// Gives what the file is meant to be: the record, else 0:0 and the mode of the disk.
    pub fn meant(&self) -> Record {
        self.record.unwrap_or(Record::plain(self.stat.st_mode))
    }

    /// Gives the whole `st_mode` that a program is to see.
    pub fn st_mode(&self) -> u32 {
        self.meant().st_mode(self.stat.st_mode)
    }
}

/// Reads the record of an open file; the descriptor may be one of `O_PATH`.
pub fn read(file: impl AsFd) -> Result<Option<Record>, Error> {
    look(file).map(|seen| seen.record)
}

/// Reads the record of a name in a directory; a symbolic link is not followed.
pub fn read_at(dir: impl AsFd, name: &OsStr) -> Result<Option<Record>, Error> {
    look_at(dir, name).map(|seen| seen.record)
}

/// Reads what the disk says of an open file and its record.
pub fn look(file: impl AsFd) -> Result<Seen, Error> {
    let file = file.as_fd();
    let stat = fstat(file).map_err(Error::of("fstat"))?;
    let record = match holder(stat.st_mode) {
        Holder::Attribute => attribute_record(file)?,
        Holder::Stamp => stamp::record(&stat),
        Holder::Nothing => None,
    };
    Ok(Seen { stat, record })
}

/// Reads what the disk says of a name in a directory, and its record; a symbolic link
/// is not followed.
pub fn look_at(dir: impl AsFd, name: &OsStr) -> Result<Seen, Error> {
    look(place(dir, name)?)
}

/// Makes an open file mean this: writes the record, or removes one that is not needed
/// any more, and sets the mode on the disk. The descriptor may be one of `O_PATH`.
pub fn write(file: impl AsFd, record: &Record) -> Result<(), Error> {
    put(file.as_fd(), record, false)
}

/// Does what [`write()`] does for a file that has just been made and has no record yet.
pub fn write_new(file: impl AsFd, record: &Record) -> Result<(), Error> {
    put(file.as_fd(), record, true)
}

fn put(file: BorrowedFd<'_>, record: &Record, is_new: bool) -> Result<(), Error> {
    let stat = fstat(file).map_err(Error::of("fstat"))?;
    if record.device.is_some() && kind(stat.st_mode) != FileType::RegularFile {
        return Err(Error::DevicePlace);
    }
    match holder(stat.st_mode) {
        Holder::Attribute if record.is_held_by_disk(stat.st_mode) => match is_new {
            true => {}
            false => remove(file)?,
        },
        Holder::Attribute => set(file, record)?,
        Holder::Stamp => set_stamp(file, record)?,
        Holder::Nothing => return Err(Error::NoPlace),
    }
    set_disk_mode(file, stat.st_mode, record)
}

/// Does what [`write()`] does to a name in a directory; a symbolic link is not followed.
pub fn write_at(dir: impl AsFd, name: &OsStr, record: &Record) -> Result<(), Error> {
    write(place(dir, name)?, record)
}

/// Removes the record of an open file and leaves the mode on the disk as it is.
pub fn clear(file: impl AsFd) -> Result<(), Error> {
    let file = file.as_fd();
    let stat = fstat(file).map_err(Error::of("fstat"))?;
    match holder(stat.st_mode) {
        Holder::Attribute => remove(file),
        Holder::Stamp => set_times(file, stamp::NOW),
        Holder::Nothing => Ok(()),
    }
}

/// Removes the record of a name in a directory; a symbolic link is not followed.
pub fn clear_at(dir: impl AsFd, name: &OsStr) -> Result<(), Error> {
    clear(place(dir, name)?)
}

/// Opens what is at a name so that it can be looked at and recorded, whatever it is.
fn place(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty()).map_err(Error::of("openat"))
}

/// Where the record of a file is.
enum Holder {
    Attribute,
    Stamp,
    /// A device that is really one.
    Nothing,
}

fn holder(st_mode: u32) -> Holder {
    match kind(st_mode) {
        FileType::RegularFile | FileType::Directory => Holder::Attribute,
        FileType::Symlink | FileType::Fifo | FileType::Socket => Holder::Stamp,
        _ => Holder::Nothing,
    }
}

fn kind(st_mode: u32) -> FileType {
    FileType::from_raw_mode(st_mode)
}

fn attribute_record(file: BorrowedFd<'_>) -> Result<Option<Record>, Error> {
    // One byte more than there can be, so that a longer value is seen as one.
    let mut bytes = [0; record::MAX_SIZE + 1];
    match calls::get(file, INODE.as_bytes(), &mut bytes) {
        Ok(size) => Record::from_bytes(&bytes[..size]).map(Some),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(Errno::RANGE) => Err(Error::Malformed),
        Err(errno) => Err(Error::of("getxattr")(errno)),
    }
}

fn set(file: BorrowedFd<'_>, record: &Record) -> Result<(), Error> {
    let (name, value) = (INODE.as_bytes(), record.to_bytes());
    calls::set(file, name, &value, XattrFlags::empty()).map_err(Error::of("setxattr"))
}

fn remove(file: BorrowedFd<'_>) -> Result<(), Error> {
    match calls::remove(file, INODE.as_bytes()) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(Error::of("removexattr")(errno)),
    }
}

/// The kernel cuts a time that the file system cannot hold without saying so, so it is
/// read again.
fn set_stamp(file: BorrowedFd<'_>, record: &Record) -> Result<(), Error> {
    if (record.uid, record.gid) == (0, 0) {
        return set_times(file, stamp::NOW);
    }
    set_times(file, stamp::of(record)?)?;
    let stat = fstat(file).map_err(Error::of("fstat"))?;
    match stamp::record(&stat) {
        Some(read) if (read.uid, read.gid) == (record.uid, record.gid) => Ok(()),
        _ => Err(Error::NoFarTimes),
    }
}

fn set_times(file: BorrowedFd<'_>, access: Timespec) -> Result<(), Error> {
    let times = stamp::access_only(access);
    utimensat(file, "", &times, AtFlags::EMPTY_PATH).map_err(Error::of("utimensat"))
}

fn set_disk_mode(file: BorrowedFd<'_>, old: u32, record: &Record) -> Result<(), Error> {
    let Some(mode) = record.disk_mode(old) else {
        return Ok(());
    };
    if mode == old & 0o7777 {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(mode);
    chmod(calls::ProcPath::of(file).as_c_str(), mode).map_err(Error::of("chmod"))
}
