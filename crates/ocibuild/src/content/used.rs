//! When things of the store were last used, and who may take them away.
//!
//! Whoever is about to use something marks it first, by its time of modification; a tree,
//! whose own time belongs to its image, by that of a file beside it. Whoever removes
//! leaves everything that was marked since the oldest process began that still works on
//! the store: nothing that a running build has seen goes away under it. Both hold the lock
//! `gc` meanwhile, one shared, the other alone, so that nothing goes between the mark and
//! the look.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FlockOperation, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::{ContentStore, Lock, open_lock};

/// What the name of the file beside a tree ends with.
pub(super) const MARK: &str = "used";

impl ContentStore {
    /// Marks something as used now, and tells whether it is there.
    pub(super) fn mark(&self, path: &Path) -> bool {
        let Ok(_shared) = self.share() else {
            return path.exists();
        };
        match touch(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            // What cannot be marked is another user's, and not ours to remove.
            Err(_) => path.exists(),
        }
    }

    /// Marks a tree as used now, and tells whether it is there.
    pub fn use_tree(&self, tree: &Path) -> bool {
        let Ok(_shared) = self.share() else {
            return tree.exists();
        };
        if !tree.exists() {
            return false;
        }
        let mark = mark_of(tree);
        if touch(&mark).is_err()
            && let Err(error) = File::create(&mark)
        {
            tracing::debug!(path = %mark.display(), %error, "the use of a tree is not marked");
        }
        true
    }

    /// Marks a folder as used now.
    pub(crate) fn use_folder(&self, folder: &Path) {
        self.mark(folder);
    }

    fn share(&self) -> Result<Lock, super::Error> {
        let path = self.root().join("locks/gc");
        let file = super::At::at(open_lock(&path), "open", &path)?;
        let shared = rustix::fs::flock(file.as_fd(), FlockOperation::LockShared);
        super::At::at(shared, "lock", &path)?;
        Ok(Lock { _file: file })
    }

    /// Gives the time at which the oldest process began that works on the store.
    pub(super) fn oldest_user(&self) -> io::Result<SystemTime> {
        // This process holds such a lock too, so there is one.
        let mut oldest = None;
        for entry in fs::read_dir(self.root().join("tmp"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "lock") {
                continue;
            }
            let Ok(file) = File::open(&path) else {
                continue;
            };
            let free = rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockShared);
            if free.is_err() {
                let began = file.metadata()?.modified()?;
                oldest = Some(oldest.map_or(began, |oldest| began.min(oldest)));
            }
        }
        Ok(oldest.unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

fn touch(path: &Path) -> io::Result<()> {
    let now = |nanoseconds| Timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: now(UTIME_OMIT),
        last_modification: now(UTIME_NOW),
    };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Gives the file that says when a tree was used.
pub(super) fn mark_of(tree: &Path) -> PathBuf {
    tree.with_extension(MARK)
}

/// Gives when a tree was used: its mark, else the time at which it came to be where it is.
pub(super) fn tree_used(tree: &Path, found: &fs::Metadata) -> SystemTime {
    let came = SystemTime::UNIX_EPOCH
        + Duration::from_secs(u64::try_from(found.ctime()).unwrap_or_default());
    let marked = fs::metadata(mark_of(tree)).and_then(|mark| mark.modified());
    marked.unwrap_or(came)
}
