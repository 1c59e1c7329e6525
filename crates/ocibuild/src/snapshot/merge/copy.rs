//! One entry of a tree, copied with everything that the disk says of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags, chmodat, chownat, copy_file_range, fchmod, fchown, fsetxattr, ftruncate, futimens,
    ioctl_ficlone, linkat, mknodat, openat, readlinkat, seek, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::executor::Identity;
use crate::layer::TreePath;
use crate::mutex::lock;
use crate::snapshot::beneath::{Beneath, Links, name_of};
use crate::snapshot::error::At;
use crate::snapshot::{Error, attributes, capability};

/// A file up to this size is read and written at once, which is faster than asking the
/// kernel to copy it.
const SMALL: usize = 64 << 10;

/// How entries are copied.
pub(super) struct Copier {
    /// Whether files on the disk have owners of their own.
    owners: bool,
    /// Whether the file system can let files share their blocks; tried once.
    clones: AtomicBool,
    links: Mutex<Names>,
}

/// Files with several names.
#[derive(Default)]
struct Names {
    /// Where the file is copied to, by the tree that it is in and its inode.
    first: HashMap<(usize, u64), TreePath>,
    /// Further names, for when all files are there.
    later: Vec<(TreePath, TreePath)>,
}

impl Copier {
    pub(super) fn new(identity: &Identity) -> Self {
        Self {
            owners: identity.has_owners(),
            clones: AtomicBool::new(true),
            links: Mutex::default(),
        }
    }

    /// Copies what is not a directory from one directory to the same name in another.
    /// `tree` tells the trees apart from which files with several names can come.
    pub(super) fn copy(
        &self,
        (tree, from): (usize, BorrowedFd<'_>),
        to: BorrowedFd<'_>,
        path: &TreePath,
        stat: &Stat,
    ) -> Result<(), Error> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            // Nobody listens at it any more.
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let mut links = lock(&self.links);
            if let Some(first) = links.first.get(&(tree, stat.st_ino)).cloned() {
                links.later.push((first, path.clone()));
                return Ok(());
            }
            links.first.insert((tree, stat.st_ino), path.clone());
        }
        match kind {
            FileType::RegularFile => self.copy_file(from, to, path, stat),
            FileType::Symlink => {
                let name = name_of(path);
                let target = readlinkat(from, name, Vec::new()).at("read the link", path)?;
                symlinkat(&target, to, name).at("create", path)?;
                self.finish_special(to, path, stat)
            }
            _ => {
                let (name, mode) = (name_of(path), Mode::from_raw_mode(0o600));
                mknodat(to, name, kind, mode, stat.st_rdev).at("create", path)?;
                self.finish_special(to, path, stat)
            }
        }
    }

    fn copy_file(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &TreePath,
        stat: &Stat,
    ) -> Result<(), Error> {
        let name = name_of(path);
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = openat(from, name, read, Mode::empty()).at("open", path)?;
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let to = openat(to, name, create, Mode::RUSR | Mode::WUSR).at("create", path)?;
        let (from, to) = (File::from(from), File::from(to));
        self.copy_content(&from, &to, stat).at("copy", path)?;
        self.finish(&from, &to, path, stat)
    }

    fn copy_content(&self, mut from: &File, mut to: &File, stat: &Stat) -> std::io::Result<()> {
        let size = stat.st_size as u64;
        if size <= SMALL as u64 {
            let mut content = vec![0; size as usize];
            from.read_exact(&mut content)?;
            return to.write_all(&content);
        }
        if self.clones.load(Ordering::Relaxed) {
            match ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(_) => self.clones.store(false, Ordering::Relaxed),
            }
        }
        if (stat.st_blocks as u64).saturating_mul(512) < size {
            return copy_sparse(from, to, size);
        }
        copy_range(from, to, size)
    }

    /// Gives an open file or directory what another one has.
    pub(super) fn finish(
        &self,
        from: impl AsFd,
        to: impl AsFd,
        path: &TreePath,
        stat: &Stat,
    ) -> Result<(), Error> {
        if self.owners {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            fchown(&to, Some(uid), Some(gid)).at("set the owner of", path)?;
        }
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        fchmod(&to, mode).at("set the mode of", path)?;
        for name in attributes::names(&from, path)? {
            if is_kept(&name) {
                let value = attributes::value(&from, &name, path)?;
                fsetxattr(&to, &name[..], &value, XattrFlags::empty())
                    .at("set an attribute of", path)?;
            }
        }
        futimens(&to, &modified(stat)).at("set the time of", path)
    }

    /// The time of access is copied too: it may be the record of an owner.
    fn finish_special(
        &self,
        dir: BorrowedFd<'_>,
        path: &TreePath,
        stat: &Stat,
    ) -> Result<(), Error> {
        let (name, link) = (name_of(path), AtFlags::SYMLINK_NOFOLLOW);
        if self.owners {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            chownat(dir, name, Some(uid), Some(gid), link).at("set the owner of", path)?;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            // What we made a moment ago in a directory of ours is no link.
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            chmodat(dir, name, mode, AtFlags::empty()).at("set the mode of", path)?;
        }
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: stat.st_atime,
                tv_nsec: stat.st_atime_nsec as _,
            },
            ..modified(stat)
        };
        utimensat(dir, name, &times, link).at("set the time of", path)
    }

    /// Gives files their further names. The directories keep the times that they have.
    pub(super) fn link_all(&self, tree: &Beneath) -> Result<(), Error> {
        let later = std::mem::take(&mut lock(&self.links).later);
        for (first, path) in later {
            let open = |path: &TreePath| {
                let dir = path.parent().unwrap_or_else(TreePath::root);
                tree.dir(&dir, Links::Refuse).at("open", &dir)
            };
            let (from, to) = (open(&first)?, open(&path)?);
            let before = rustix::fs::fstat(&to).at("look at the directory of", &path)?;
            linkat(
                &from,
                name_of(&first),
                &to,
                name_of(&path),
                AtFlags::empty(),
            )
            .at("create", &path)?;
            futimens(&to, &modified(&before)).at("set the time of the directory of", &path)?;
        }
        Ok(())
    }
}

/// What means something beside the content: not what the kernel or the machine keeps
/// there for itself.
fn is_kept(name: &[u8]) -> bool {
    let is_note = name.starts_with(b"user.overlay.");
    name == capability::NAME.as_bytes()
        || name.starts_with(b"system.posix_acl_")
        || (name.starts_with(b"user.") && !is_note)
}

pub(super) fn modified(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}

/// Copies from where both files stand.
fn copy_range(mut from: &File, mut to: &File, mut size: u64) -> std::io::Result<()> {
    while size > 0 {
        let count = usize::try_from(size).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(from, None, to, None, count) {
            // Between file systems, or where the kernel cannot.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                std::io::copy(&mut from, &mut to)?;
                return Ok(());
            }
            Err(Errno::INTR) => {}
            Ok(0) => return Ok(()),
            copied => size = size.saturating_sub(copied? as u64),
        }
    }
    Ok(())
}

fn copy_sparse(from: &File, to: &File, size: u64) -> std::io::Result<()> {
    ftruncate(to, size)?;
    let mut position = 0;
    while position < size {
        let begin = match seek(from, SeekFrom::Data(position)) {
            Err(Errno::NXIO) => return Ok(()),
            begin => begin?,
        };
        let end = seek(from, SeekFrom::Hole(begin))?.min(size);
        seek(from, SeekFrom::Start(begin))?;
        seek(to, SeekFrom::Start(begin))?;
        copy_range(from, to, end.saturating_sub(begin))?;
        position = end;
    }
    Ok(())
}
