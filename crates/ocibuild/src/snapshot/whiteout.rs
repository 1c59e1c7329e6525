//! How an overlay file system writes down what it removed: a character device 0:0
//! for a path, an attribute for a directory whose lower content is gone
//! (kernel documentation, overlayfs, "whiteouts and opaque directories").
//!
//! In an overlay file system itself, as containers have it, nobody may make such a device.
//! There an empty file with an attribute hides a path, in a directory that says that it
//! has such files; the kernel knows these since 6.7.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{
    FileType, Mode, OFlags, Stat, XattrFlags, fgetxattr, fsetxattr, lgetxattr, mknodat, openat,
};
use rustix::io::Errno;

use crate::executor::Notes;

/// What a directory hides of the layers below it, beside what it hides name by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opacity {
    /// Nothing.
    Clear,
    /// Nothing, but empty files in it can be whiteouts.
    Whiteouts,
    /// Everything.
    Opaque,
}

impl Opacity {
    /// Reads the value of the attribute.
    pub(super) fn of_value(value: &[u8]) -> Self {
        match value {
            b"y" => Self::Opaque,
            b"x" => Self::Whiteouts,
            _ => Self::Clear,
        }
    }

    fn value(self) -> &'static [u8] {
        match self {
            Self::Clear => b"",
            Self::Whiteouts => b"x",
            Self::Opaque => b"y",
        }
    }

    /// Reads it of an open directory.
    pub(super) fn of(dir: impl AsFd, notes: Notes) -> Result<Self, Errno> {
        let mut value = [0; 2];
        match fgetxattr(dir, notes.opaque(), &mut value) {
            Ok(size) => Ok(Self::of_value(&value[..size])),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(Self::Clear),
            Err(errno) => Err(errno),
        }
    }

    /// Writes it to an open directory.
    pub(super) fn set(self, dir: impl AsFd, notes: Notes) -> Result<(), Errno> {
        fsetxattr(dir, notes.opaque(), self.value(), XattrFlags::empty())
    }
}

impl Notes {
    fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    fn whiteout(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.whiteout",
            Self::User => "user.overlay.whiteout",
        }
    }

    /// Gives what the kernel noted, if the attribute is one of its notes.
    pub(super) fn strip(self, attribute: &[u8]) -> Option<&[u8]> {
        let prefix: &[u8] = match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        };
        attribute.strip_prefix(prefix)
    }
}

/// Makes a whiteout; there is nothing of that name yet.
pub(super) fn hide(dir: BorrowedFd<'_>, name: &OsStr, notes: Notes) -> Result<(), Errno> {
    match mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::PERM) => {}
        made => return made,
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    fsetxattr(file, notes.whiteout(), b"y", XattrFlags::empty())?;
    match Opacity::of(dir, notes)? {
        Opacity::Clear => Opacity::Whiteouts.set(dir, notes),
        Opacity::Whiteouts | Opacity::Opaque => Ok(()),
    }
}

/// Tells whether a name in a directory is a whiteout.
pub(super) fn is_hidden(
    (dir, opacity): (BorrowedFd<'_>, Opacity),
    name: &[u8],
    stat: &Stat,
    notes: Notes,
) -> Result<bool, Errno> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => Ok(stat.st_rdev == 0),
        FileType::RegularFile if stat.st_size == 0 && opacity != Opacity::Clear => {
            let dir = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
            match lgetxattr(
                dir.join(OsStr::from_bytes(name)),
                notes.whiteout(),
                &mut [0; 2],
            ) {
                Ok(_) | Err(Errno::RANGE) => Ok(true),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
                Err(errno) => Err(errno),
            }
        }
        _ => Ok(false),
    }
}
