//! What a tree looks like to somebody who wants to see later whether it has changed.
//!
//! One walk reads the metadata of every entry and no content. A program can set a file's
//! size and times back, but not the time of its last change: the kernel sets that.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

use rustix::fs::{AtFlags, FileType, RawDir, Stat, statat};
use serde::{Deserialize, Serialize};

use super::parallel::each;
use crate::layer::{self, TreePath};
use crate::mutex::lock;
use crate::snapshot::Error;
use crate::snapshot::beneath::{Beneath, Links};
use crate::snapshot::error::At;

/// Room for the names of a directory of usual size.
const NAMES: usize = 32 << 10;

/// The entries of a tree, directory by directory; the first is the root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    dirs: Vec<Vec<Entry>>,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) name: Box<[u8]>,
    pub(super) fact: Fact,
    /// What is in it, if it is a directory: the number in the table.
    pub(super) below: Option<u32>,
}

/// What the kernel says of an inode, but for the time of the last access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fact {
    pub(super) inode: u64,
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) owner: (u32, u32),
    pub(super) device: u64,
    pub(super) size: i64,
    pub(super) modified: (i64, u32),
    pub(super) changed: (i64, u32),
}

impl Fact {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "counts and nanoseconds are small"
    )]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            mode: stat.st_mode,
            links: stat.st_nlink as u32,
            owner: (stat.st_uid, stat.st_gid),
            device: stat.st_rdev,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
            changed: (stat.st_ctime, stat.st_ctime_nsec as u32),
        }
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }
}

impl Table {
    /// Reads a whole tree; the excluded paths are not looked at.
    pub(super) fn read(tree: &Beneath) -> Result<Self, Error> {
        let dirs = Mutex::new(Dirs {
            read: HashMap::new(),
            count: 1,
        });
        each(vec![(0, TreePath::root())], |(number, path), more| {
            let mut entries = list(tree, &path)?;
            let found = entries.iter_mut().filter(|entry| entry.fact.is_dir());
            let found: Vec<&mut Entry> = found.collect();
            let mut dirs = lock(&dirs);
            for entry in found {
                let below = dirs.count;
                dirs.count += 1;
                entry.below = Some(below);
                let path = path.join(&entry.name).map_err(layer::Error::from)?;
                more.push((below, path));
            }
            dirs.read.insert(number, entries);
            Ok::<(), Error>(())
        })?;
        let mut read = dirs
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let dirs = (0..read.count).map(|number| read.read.remove(&number).unwrap_or_default());
        Ok(Self {
            dirs: dirs.collect(),
        })
    }

    /// Gives the entries of a directory, sorted by name.
    pub(super) fn dir(&self, number: u32) -> &[Entry] {
        self.dirs
            .get(number as usize)
            .map_or(&[], |entries| entries)
    }

    /// Gives what is known of one path, but the root.
    pub(super) fn fact(&mut self, path: &TreePath) -> Option<&mut Fact> {
        let mut number = 0;
        let mut found: Option<(usize, usize)> = None;
        for name in path.as_bytes().split(|byte| *byte == b'/') {
            if let Some((dir, index)) = found {
                number = self.dirs.get(dir)?.get(index)?.below? as usize;
            }
            let entries = self.dirs.get(number)?;
            let index = entries
                .binary_search_by(|entry| (*entry.name).cmp(name))
                .ok()?;
            found = Some((number, index));
        }
        let (dir, index) = found?;
        Some(&mut self.dirs.get_mut(dir)?.get_mut(index)?.fact)
    }

    /// Gives the number of entries.
    pub(super) fn len(&self) -> usize {
        self.dirs.iter().map(Vec::len).sum()
    }

    /// Gives when anything in the tree was changed last.
    pub(super) fn last_change(&self) -> (i64, u32) {
        let entries = self.dirs.iter().flatten();
        entries
            .map(|entry| entry.fact.changed)
            .max()
            .unwrap_or_default()
    }
}

struct Dirs {
    read: HashMap<u32, Vec<Entry>>,
    count: u32,
}

fn list(tree: &Beneath, path: &TreePath) -> Result<Vec<Entry>, Error> {
    let dir = tree.dir(path, Links::Refuse).at("open", path)?;
    let mut entries = Vec::new();
    names(&dir, path, |name| {
        let stat = statat(&dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
            .at("look at an entry of", path)?;
        entries.push(Entry {
            name: name.into(),
            fact: Fact::of(&stat),
            below: None,
        });
        Ok(())
    })?;
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// Gives every name in an open directory that has not been read yet.
pub(super) fn names(
    dir: impl std::os::fd::AsFd,
    path: &TreePath,
    mut give: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut room = vec![MaybeUninit::<u8>::uninit(); NAMES];
    let dir: BorrowedFd<'_> = dir.as_fd();
    let mut dir = RawDir::new(dir, &mut room);
    while let Some(entry) = dir.next() {
        let entry = entry.at("list", path)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            give(name)?;
        }
    }
    Ok(())
}
