//! Taking things out of a store: the longest unused first, and nothing that a running
//! build has seen.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::usage::{Item, Kind, size_of};
use super::{At, ContentStore, Error, Lock, used};
use crate::registry::{Descriptor, Index, Manifest, media_type};

/// What is to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prune {
    /// Images that have a name in the store go too.
    pub images: bool,
    /// Only what was not used since this time goes.
    pub unused_since: Option<SystemTime>,
    /// Nothing more goes when this many bytes are left.
    pub keep_bytes: Option<u64>,
    /// Only these kinds go; all where there is none.
    pub kinds: Vec<Kind>,
}

/// What went, by kind: how many things, and how many bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Things and bytes of each kind.
    pub kinds: BTreeMap<Kind, (usize, u64)>,
    /// What could not be removed, and why.
    pub problems: Vec<String>,
}

impl Pruned {
    /// Gives how many bytes went.
    pub fn bytes(&self) -> u64 {
        self.kinds.values().map(|(_, bytes)| bytes).sum()
    }
}

/// Removes a folder whose files may belong to other ids.
pub type Remover<'a> = &'a (dyn Fn(&Path) -> io::Result<()> + Sync);

impl ContentStore {
    /// Removes what is asked for and not in use. Blocks.
    pub fn prune(&self, prune: &Prune, remover: Remover<'_>) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        for (item, folder) in self.take_away(prune)? {
            let removed = folder.map_or(Ok(()), |folder| remove(&folder, remover));
            match removed {
                Ok(()) => {
                    let (count, bytes) = pruned.kinds.entry(item.kind).or_default();
                    *count += 1;
                    *bytes += item.bytes;
                }
                Err(error) => {
                    let path = item.path.display();
                    pruned.problems.push(format!("remove {path}: {error}"));
                }
            }
        }
        Ok(pruned)
    }

    /// Takes what is to go from where builds find it. Folders are still there then, under
    /// the names that are given with them.
    fn take_away(&self, prune: &Prune) -> Result<Vec<(Item, Option<PathBuf>)>, Error> {
        let items = self.items();
        let total: u64 = items.iter().map(|item| item.bytes).sum();
        let alone = self.lock("gc")?;
        let tmp = self.root().join("tmp");
        let before = self.oldest_user().at("look for builds in", &tmp)?;
        let before = prune.unused_since.map_or(before, |since| since.min(before));
        if prune.images {
            self.forget_images(before)?;
        }
        let kept = self.kept_for_images()?;
        let mut going: Vec<Item> = items
            .into_iter()
            .filter(|item| item.kind != Kind::Work)
            .filter(|item| prune.kinds.is_empty() || prune.kinds.contains(&item.kind))
            .filter(|item| !kept.contains(item.path.as_path()))
            .collect();
        going.sort_by_key(|item| item.used);
        let mut left = total;
        let mut taken = Vec::new();
        for item in going {
            if prune.keep_bytes.is_some_and(|keep| left <= keep) {
                break;
            }
            // It may have been used since it was counted.
            if used_now(&item).is_none_or(|used| used >= before) {
                continue;
            }
            let Some(_slots) = self.slots(&item)? else {
                continue;
            };
            let folder = match unname(&item) {
                // It went meanwhile, or what it was before still does.
                Err(error) if is_going(&error) => continue,
                other => other.at("take away", &item.path)?,
            };
            left = left.saturating_sub(item.bytes);
            taken.push((item, folder));
        }
        drop(alone);
        Ok(taken)
    }

    /// Takes every slot of a cache mount; none where somebody uses one. Other things need
    /// no lock.
    fn slots(&self, item: &Item) -> Result<Option<Vec<Lock>>, Error> {
        let mut slots = Vec::new();
        if item.kind != Kind::CacheMounts {
            return Ok(Some(slots));
        }
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let identity = item.path.parent().map(name).unwrap_or_default();
        for slot in fs::read_dir(&item.path).at("read", &item.path)?.flatten() {
            let (hex, slot) = (name(&item.path), name(&slot.path()));
            let lock = self.try_lock(&format!("cache-{identity}-{hex}-{slot}"), false)?;
            match lock {
                Some(lock) => slots.push(lock),
                None => return Ok(None),
            }
        }
        Ok(Some(slots))
    }

    /// Takes the names away from images that nobody has used since a time.
    fn forget_images(&self, before: SystemTime) -> Result<(), Error> {
        let _lock = self.lock("index")?;
        let images = self.images()?;
        let (kept, gone): (Vec<_>, Vec<_>) = images.into_iter().partition(|image| {
            let found = fs::metadata(self.blob_path(&image.digest));
            let used = found.and_then(|found| found.modified());
            used.is_ok_and(|used| used >= before)
        });
        match gone.is_empty() {
            true => Ok(()),
            false => self.write_json(&self.root().join("index.json"), &Index::of(kept)),
        }
    }

    /// Gives the paths of what images with a name need.
    fn kept_for_images(&self) -> Result<HashSet<PathBuf>, Error> {
        let mut kept = HashSet::new();
        let mut documents = self.images()?;
        while let Some(document) = documents.pop() {
            if !kept.insert(self.blob_path(&document.digest)) {
                continue;
            }
            for named in self.named_in(&document) {
                // Where its bytes can be had, if they are not here.
                kept.insert(self.origin_path(&named.digest));
                match is_document(&named) {
                    true => documents.push(named),
                    false => drop(kept.insert(self.blob_path(&named.digest))),
                }
            }
        }
        Ok(kept)
    }

    /// Gives what a manifest or index names; nothing where it cannot be read.
    fn named_in(&self, document: &Descriptor) -> Vec<Descriptor> {
        let Ok(bytes) = fs::read(self.blob_path(&document.digest)) else {
            return Vec::new();
        };
        if media_type::is_index(&document.media_type) {
            let index: Result<Index, _> = serde_json::from_slice(&bytes);
            return index.map(|index| index.manifests).unwrap_or_default();
        }
        let manifest: Result<Manifest, _> = serde_json::from_slice(&bytes);
        let named = manifest.map(|manifest| {
            let mut named = manifest.layers;
            named.push(manifest.config);
            named
        });
        named.unwrap_or_default()
    }
}

fn is_going(error: &io::Error) -> bool {
    use io::ErrorKind::{DirectoryNotEmpty, NotFound};
    matches!(error.kind(), NotFound | DirectoryNotEmpty)
}

fn is_document(named: &Descriptor) -> bool {
    media_type::is_index(&named.media_type) || media_type::is_manifest(&named.media_type)
}

fn used_now(item: &Item) -> Option<SystemTime> {
    let found = fs::symlink_metadata(&item.path).ok()?;
    match item.kind {
        Kind::Trees => Some(used::tree_used(&item.path, &found)),
        _ => found.modified().ok(),
    }
}

/// Removes a file, or gives a folder a name that no build knows. That name is beside the
/// old one: into another folder a folder of another owner cannot be moved.
fn unname(item: &Item) -> io::Result<Option<PathBuf>> {
    if !fs::symlink_metadata(&item.path)?.is_dir() {
        return fs::remove_file(&item.path).map(|()| None);
    }
    let gone = item.path.with_extension("gone");
    if gone != item.path {
        fs::rename(&item.path, &gone)?;
    }
    if item.kind == Kind::Trees {
        // They say nothing about a tree that comes later.
        drop(fs::remove_file(used::mark_of(&item.path)));
        drop(fs::remove_file(size_of(&item.path)));
    }
    Ok(Some(gone))
}

fn remove(folder: &Path, remover: Remover<'_>) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => remover(folder),
        other => other,
    }
}
