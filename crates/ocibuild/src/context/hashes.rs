//! Remembers the digests of files that have not changed since they were last read.
//!
//! A file is known by device, inode, size, mtime and ctime. A ctime cannot be set
//! back, so an edit is always seen — unless it happens within one tick of the clock
//! after the file was read. Files as young as that are therefore not remembered.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::layer::TreePath;
use crate::registry::Digest;

/// A clock tick of the coarsest file system that we expect (FAT counts in 2 s).
const SETTLED: Duration = Duration::from_secs(2);

/// What makes an unchanged file recognisable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let changed = Duration::from_secs(self.ctime.0.try_into().unwrap_or(0));
        now.saturating_sub(changed) > SETTLED
    }
}

/// Digests by path and stamp, kept in a file.
#[derive(Debug)]
pub(super) struct Hashes {
    file: Option<PathBuf>,
    known: HashMap<TreePath, (Stamp, Digest)>,
    changed: bool,
    loaded_at: SystemTime,
}

impl Hashes {
    /// Reads what was remembered; a missing or damaged file is an empty memory.
    pub(super) fn load(file: Option<PathBuf>) -> Self {
        let known = file
            .as_ref()
            .and_then(|file| fs::read(file).ok())
            .and_then(|bytes| postcard::from_bytes(&bytes).ok())
            .unwrap_or_default();
        Self {
            file,
            known,
            changed: false,
            loaded_at: SystemTime::now(),
        }
    }

    pub(super) fn get(&self, path: &TreePath, stamp: &Stamp) -> Option<Digest> {
        let (known, digest) = self.known.get(path)?;
        (known == stamp).then_some(*digest)
    }

    pub(super) fn put(&mut self, path: TreePath, stamp: Stamp, digest: Digest) {
        if stamp.is_settled(self.loaded_at) {
            self.known.insert(path, (stamp, digest));
            self.changed = true;
        }
    }

    pub(super) fn save(&mut self) {
        let (Some(file), true) = (&self.file, self.changed) else {
            return;
        };
        if let Err(error) = self.write(file) {
            tracing::debug!(path = %file.display(), %error, "digests of the context are not remembered");
        }
        self.changed = false;
    }

    fn write(&self, file: &std::path::Path) -> std::io::Result<()> {
        let folder = file.parent().unwrap_or(file);
        fs::create_dir_all(folder)?;
        let bytes = postcard::to_stdvec(&self.known).map_err(std::io::Error::other)?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(&bytes)?;
        temporary.persist(file)?;
        Ok(())
    }
}
