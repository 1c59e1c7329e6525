//! Entries in the order of a tar become a [`Toc`]; what could not stand on a disk
//! beside the rest of its layer is refused here, for reading and writing alike.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound::{Excluded, Unbounded};

use super::toc::AccountFiles;
use super::{Entry, EntryMeta, Error, Kind, Toc, TreePath};

/// What entries take in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) entries: u64,
    pub(super) metadata: u64,
}

/// Collects entries; a later entry replaces an earlier one of the same path.
#[derive(Debug, Default)]
pub(super) struct TocBuilder {
    entries: BTreeMap<TreePath, Entry>,
    whiteouts: BTreeSet<TreePath>,
    opaques: BTreeSet<TreePath>,
    /// Files that a hard link names: these may not be replaced any more.
    linked: HashSet<TreePath>,
    implied: Cost,
    pub(super) accounts: AccountFiles,
}

impl TocBuilder {
    /// Checks that an entry can be added and makes its hard link name the file itself.
    pub(super) fn admit(&mut self, meta: &mut EntryMeta) -> Result<(), Error> {
        self.admit_parents(&meta.path)?;
        if !meta.kind.is_dir() {
            self.admit_non_directory(&meta.path)?;
        }
        if let (true, Some(old)) = (
            self.linked.contains(&meta.path),
            self.entries.get(&meta.path),
        ) {
            let reason = "a file that a hard link names cannot be replaced";
            return Err(conflict(&meta.path, &old.path, reason));
        }
        self.settle_link(meta)
    }

    /// Adds an entry that was admitted.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.add_parents(&entry.path);
        if let Kind::Hardlink { target } = &entry.kind {
            self.linked.insert(target.clone());
        }
        self.entries.insert(entry.path.clone(), entry);
    }

    /// Adds the removal of a path of lower layers.
    pub(super) fn whiteout(&mut self, path: TreePath) -> Result<(), Error> {
        self.admit_parents(&path)?;
        self.add_parents(&path);
        self.whiteouts.insert(path);
        Ok(())
    }

    /// Adds the removal of everything that lower layers have in a directory.
    pub(super) fn opaque(&mut self, path: TreePath) -> Result<(), Error> {
        self.admit_parents(&path)?;
        match self.entries.get(&path) {
            Some(entry) if !entry.kind.is_dir() => {
                let reason = "only a directory can be opaque";
                return Err(conflict(&path, &entry.path, reason));
            }
            Some(_) => {}
            None => self.insert(Entry::implicit_dir(path.clone())),
        }
        self.opaques.insert(path);
        Ok(())
    }

    /// Gives the cost of the directories that were added for what lies in them: one
    /// long name can make thousands.
    pub(super) fn implied(&self) -> Cost {
        self.implied
    }

    /// Ends the collection.
    pub(super) fn finish(mut self) -> Toc {
        let root = TreePath::root();
        self.entries
            .entry(root.clone())
            .or_insert_with(|| Entry::implicit_dir(root));
        Toc {
            entries: self.entries.into_values().collect(),
            whiteouts: self.whiteouts.into_iter().collect(),
            opaques: self.opaques.into_iter().collect(),
            accounts: self.accounts,
        }
    }

    /// Whatever stands above a path must be a directory. Where the nearest one that
    /// is there is a directory, those above it were checked when it was added.
    fn admit_parents(&self, path: &TreePath) -> Result<(), Error> {
        let mut above = path.parent();
        while let Some(parent) = above {
            match self.entries.get(&parent) {
                Some(entry) if entry.kind.is_dir() => return Ok(()),
                Some(entry) => {
                    let reason = "what it lies in is not a directory";
                    return Err(conflict(path, &entry.path, reason));
                }
                None => above = parent.parent(),
            }
        }
        Ok(())
    }

    fn admit_non_directory(&self, path: &TreePath) -> Result<(), Error> {
        if path.is_root() {
            return Err(conflict(path, path, "the root must be a directory"));
        }
        let reason = "it would replace a directory that is not empty";
        let after = (Excluded(path), Unbounded);
        let entry = self.entries.range::<TreePath, _>(after).next();
        let whiteout = self.whiteouts.range::<TreePath, _>(after).next();
        for next in [entry.map(|(path, _)| path), whiteout]
            .into_iter()
            .flatten()
        {
            if next.starts_with(path) {
                return Err(conflict(path, next, reason));
            }
        }
        if self.opaques.contains(path) {
            return Err(conflict(path, path, "only a directory can be opaque"));
        }
        Ok(())
    }

    /// A hard link to a file names the file itself. Other builders write hard links to
    /// symbolic links, devices and pipes too, which have no content to share: such a name
    /// becomes one more of these.
    fn settle_link(&self, meta: &mut EntryMeta) -> Result<(), Error> {
        let Kind::Hardlink { target } = &mut meta.kind else {
            return Ok(());
        };
        match self.entries.get(target) {
            Some(entry) if entry.kind.is_special() => {
                let path = meta.path.clone();
                *meta = EntryMeta {
                    path,
                    ..entry.to_meta()
                };
            }
            _ => *target = self.linked_file(&meta.path, target)?,
        }
        Ok(())
    }

    fn linked_file(&self, path: &TreePath, target: &TreePath) -> Result<TreePath, Error> {
        match self.entries.get(target).map(|entry| &entry.kind) {
            Some(Kind::File(_)) if path != target => Ok(target.clone()),
            Some(Kind::Hardlink { target: file }) if path != file => Ok(file.clone()),
            _ => {
                let reason = "a hard link must name an earlier file of the same layer";
                Err(conflict(path, target, reason))
            }
        }
    }

    fn add_parents(&mut self, path: &TreePath) {
        let mut above = path.parent();
        while let Some(parent) = above {
            if self.entries.contains_key(&parent) {
                return;
            }
            above = parent.parent();
            self.implied.entries += 1;
            self.implied.metadata += parent.as_bytes().len() as u64;
            self.entries
                .insert(parent.clone(), Entry::implicit_dir(parent));
        }
    }
}

fn conflict(path: &TreePath, other: &TreePath, reason: &'static str) -> Error {
    Error::Conflict {
        path: path.clone(),
        other: other.clone(),
        reason,
    }
}
