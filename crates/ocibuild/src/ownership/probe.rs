//! Whether a file system can hold records, found out by making some.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, mkdirat, mknodat, open, openat, readlinkat, symlinkat,
    unlinkat,
};

use super::{Device, Error, Record, read_at, write_at};

/// Makes files in a directory, which must be empty and is so again afterwards, and
/// records owners for them; the error says what the file system cannot hold.
pub fn probe(dir: &Path) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open(dir, flags, Mode::empty()).map_err(Error::of("open"))?;
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    openat(&dir, "file", create, mode).map_err(Error::of("openat"))?;
    mkdirat(&dir, "dir", Mode::RWXU).map_err(Error::of("mkdirat"))?;
    symlinkat("target", &dir, "link").map_err(Error::of("symlinkat"))?;
    mknodat(&dir, "pipe", FileType::Fifo, mode, 0).map_err(Error::of("mknodat"))?;
    let held = check(&dir);
    for (name, flags) in [
        ("file", AtFlags::empty()),
        ("dir", AtFlags::REMOVEDIR),
        ("link", AtFlags::empty()),
        ("pipe", AtFlags::empty()),
    ] {
        unlinkat(&dir, name, flags).map_err(Error::of("unlinkat"))?;
    }
    held
}

fn check(dir: &OwnedFd) -> Result<(), Error> {
    let record = Record {
        uid: 4_000_000_001,
        gid: 65_534,
        mode: 0o644,
        device: None,
    };
    let device = Some(Device::Char(1, 3));
    let link = Record {
        mode: 0o777,
        ..record
    };
    let records = [
        ("file", Record { device, ..record }),
        (
            "dir",
            Record {
                mode: 0o1777,
                ..record
            },
        ),
        ("pipe", record),
        ("link", link),
    ];
    for (name, record) in &records {
        write_at(dir, OsStr::new(name), record)?;
    }
    readlinkat(dir, "link", Vec::new()).map_err(Error::of("readlinkat"))?;
    for (name, record) in records {
        if read_at(dir, OsStr::new(name))? != Some(record) {
            return Err(Error::StrictTimes);
        }
    }
    Ok(())
}
