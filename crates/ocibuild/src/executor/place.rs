//! Places for mounts inside the root.
//!
//! The path is walked inside the root, following symbolic links there, since the image
//! decides about them: `/etc/resolv.conf` is often a link to a file under `/run` that
//! does not exist. What is missing is made and noted, so that it can be taken away after
//! the command. Nothing else runs in the root meanwhile.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, fstat,
    mkdirat, open, openat, openat2, readlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::{Attempt, Failure};

/// How many symbolic links a path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// Whether a place is for a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    File,
    Directory,
}

/// Something that was made for a mount.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Made {
    /// Where, from the root.
    path: PathBuf,
    kind: Kind,
    /// When its directory was changed last before, in seconds and nanoseconds.
    parent_changed: (i64, i64),
}

impl Made {
    /// Where it is, from the root.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A root in which places are looked for.
pub(super) struct Places {
    root: OwnedFd,
    /// The root's own file system, not one that is mounted in it.
    device: u64,
    made: Vec<Made>,
}

impl Places {
    /// Begins with the root at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let root = open(path, directory_flags(), Mode::empty()).attempt("open", "the root")?;
        let device = stat(&root, path)?.st_dev;
        Ok(Self {
            root,
            device,
            made: Vec::new(),
        })
    }

    /// Ends with what was made and is to be removed, in that order.
    pub(super) fn into_made(self) -> Vec<Made> {
        self.made
    }

    /// Forgets what was made below a directory of the root, which a mount covers.
    pub(super) fn forget_made_below(&mut self, directory: &str) {
        self.made.retain(|made| !made.path.starts_with(directory));
    }

    /// Opens what is there, if anything is.
    pub(super) fn find(&self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        let path = path.trim_start_matches('/');
        match openat2(&self.root, path, path_flags(), Mode::empty(), inside()) {
            Ok(place) => Ok(Some(place)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno).attempt("openat2", path),
        }
    }

    /// Opens a place of this kind, which is made and noted if it is missing.
    pub(super) fn find_or_make(&mut self, path: &Path, kind: Kind) -> Result<OwnedFd, Failure> {
        let resolved = self.resolve(path)?;
        let mut components = resolved.iter().peekable();
        let mut walked = PathBuf::new();
        let mut place = openat(&self.root, ".", directory_flags(), Mode::empty())
            .attempt("openat", path.display())?;
        while let Some(name) = components.next() {
            walked.push(name);
            let wanted = if components.peek().is_some() {
                Kind::Directory
            } else {
                kind
            };
            place = match openat(&place, name, path_flags(), Mode::empty()) {
                Err(Errno::NOENT) => self.make(&place, &walked, wanted)?,
                other => other.attempt("openat", walked.display())?,
            };
        }
        let is_directory = is(FileType::Directory, &stat(&place, path)?);
        if is_directory != (kind == Kind::Directory) {
            let reason = if is_directory {
                "is a directory"
            } else {
                "is not a directory"
            };
            return Err(unusable(path, reason));
        }
        Ok(place)
    }

    fn make(&mut self, parent: &OwnedFd, path: &Path, kind: Kind) -> Result<OwnedFd, Failure> {
        let Some(name) = path.file_name() else {
            return Err(unusable(path, "has no name"));
        };
        let before = stat(parent, path)?;
        let parent_changed = (before.st_mtime, before.st_mtime_nsec as i64);
        match kind {
            Kind::Directory => {
                let made = mkdirat(parent, name, Mode::from_raw_mode(0o755));
                made.map_err(|errno| not_made("mkdirat", errno, path))?;
            }
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let made = openat(parent, name, flags, Mode::from_raw_mode(0o644));
                made.map_err(|errno| not_made("openat", errno, path))?;
            }
        }
        // What is made in another mount goes with that, or stays in a cache; in the root
        // something of the image may be at this path.
        if before.st_dev == self.device {
            self.made.push(Made {
                path: path.to_owned(),
                kind,
                parent_changed,
            });
        }
        openat(parent, name, path_flags(), Mode::empty()).attempt("openat", path.display())
    }

    /// Follows the symbolic links of a path inside the root, also where what they lead
    /// to is missing; `..` ends at the root. The result has neither.
    pub(super) fn resolve(&self, path: &Path) -> Result<PathBuf, Failure> {
        let mut links = 0;
        let mut resolved = PathBuf::new();
        let mut rest = components(path);
        while let Some(name) = rest.pop() {
            if name == ".." {
                resolved.pop();
                continue;
            }
            let Some(target) = self.read_link(&resolved.join(&name))? else {
                resolved.push(name);
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(unusable(path, "leads through too many symbolic links"));
            }
            if target.is_absolute() {
                resolved = PathBuf::new();
            }
            rest.extend(components(&target));
        }
        Ok(resolved)
    }

    /// The target of a symbolic link; nothing if there is no link.
    fn read_link(&self, path: &Path) -> Result<Option<PathBuf>, Failure> {
        let entry = match openat2(&self.root, path, path_flags(), Mode::empty(), inside()) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR) => return Err(unusable(path, "leads through a file")),
            other => other.attempt("openat2", path.display())?,
        };
        if !is(FileType::Symlink, &stat(&entry, path)?) {
            return Ok(None);
        }
        let target = readlinkat(&entry, "", Vec::new()).attempt("readlinkat", path.display())?;
        Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes()))))
    }
}

/// Takes away what was made, if the command has left it empty, and gives the
/// directories back the time of their last change.
pub(super) fn remove(root: &Path, made: &[Made]) -> Result<(), Failure> {
    if made.is_empty() {
        return Ok(());
    }
    let root = open(root, directory_flags(), Mode::empty()).attempt("open", "the root")?;
    for Made {
        path,
        kind,
        parent_changed,
    } in made.iter().rev()
    {
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            continue;
        };
        let flags = directory_flags() | OFlags::NOFOLLOW;
        let parent = if parent == Path::new("") {
            Path::new(".")
        } else {
            parent
        };
        // The command may have removed or replaced any of it; then it is its own.
        let Ok(directory) = openat2(&root, parent, flags, Mode::empty(), inside()) else {
            continue;
        };
        let is_empty_file = || {
            let entry = openat(&directory, name, path_flags(), Mode::empty());
            entry
                .and_then(fstat)
                .is_ok_and(|s| is(FileType::RegularFile, &s) && s.st_size == 0)
        };
        let removed = match kind {
            Kind::Directory => unlinkat(&directory, name, AtFlags::REMOVEDIR),
            Kind::File if is_empty_file() => unlinkat(&directory, name, AtFlags::empty()),
            Kind::File => continue,
        };
        match removed {
            Ok(()) => restore_time(&root, parent, *parent_changed)?,
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            Err(errno) => Err(errno).attempt("unlinkat", path.display())?,
        }
    }
    Ok(())
}

fn restore_time(root: &OwnedFd, directory: &Path, changed: (i64, i64)) -> Result<(), Failure> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: changed.0,
            tv_nsec: changed.1 as _,
        },
    };
    utimensat(root, directory, &times, AtFlags::SYMLINK_NOFOLLOW)
        .attempt("utimensat", directory.display())
}

/// The names of a path, last first; `..` is kept.
fn components(path: &Path) -> Vec<OsString> {
    let names = path
        .components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
    names.collect()
}

fn directory_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn path_flags() -> OFlags {
    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

fn stat(descriptor: &OwnedFd, path: &Path) -> Result<Stat, Failure> {
    fstat(descriptor).attempt("fstat", path.display())
}

fn is(kind: FileType, stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

fn not_made(call: &str, errno: Errno, path: &Path) -> Failure {
    if errno == Errno::ROFS {
        let reason = "is missing as a place for a mount, and cannot be made in a read-only one";
        return unusable(path, reason);
    }
    let made: Result<(), Failure> = Err(errno).attempt(call, path.display());
    made.err().unwrap_or(Failure::Garbled)
}

fn unusable(path: &Path, reason: &str) -> Failure {
    Failure::UnusablePath {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    }
}
