//! What is in a store and how much of the disk it takes.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::{ContentStore, used};
use crate::snapshot::merge::POOL as MERGED;

/// Kinds of things in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Layers, configurations and manifests as they are moved.
    Blobs,
    /// Layers unpacked for RUN.
    Trees,
    /// Layers joined for RUN where nothing can be mounted, waiting for the next step.
    Merged,
    /// Tables of contents of layers.
    Tables,
    /// What steps gave, what their keys were made of, and the like.
    Steps,
    /// Directories of `RUN --mount=type=cache`.
    CacheMounts,
    /// Repositories.
    Git,
    /// Work in progress.
    Work,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Blobs,
        Self::Trees,
        Self::Merged,
        Self::Tables,
        Self::Steps,
        Self::CacheMounts,
        Self::Git,
        Self::Work,
    ];

    /// Gives its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Trees => "trees",
            Self::Merged => "merged trees",
            Self::Tables => "tables",
            Self::Steps => "steps",
            Self::CacheMounts => "cache mounts",
            Self::Git => "git",
            Self::Work => "work in progress",
        }
    }
}

/// One thing in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
    /// What it takes of the disk.
    pub bytes: u64,
    /// When it was last used.
    pub used: SystemTime,
}

/// Folders whose files are records of steps.
const RECORDS: [&str; 10] = [
    "steps",
    "same",
    "packed",
    "keys",
    "builds",
    "origins",
    "downloads",
    "contexts",
    "variants",
    "places",
];

impl ContentStore {
    /// Gives everything in the store with what it takes of the disk. Blocks.
    pub fn items(&self) -> Vec<Item> {
        let root = self.root();
        let mut items = Vec::new();
        for algorithm in children(&root.join("blobs")) {
            items.extend(files(Kind::Blobs, &algorithm.0));
        }
        items.extend(files(Kind::Tables, &root.join("tocs")));
        for folder in RECORDS {
            items.extend(files(Kind::Steps, &root.join(folder)));
        }
        for (identity, _) in children(&root.join("layers")) {
            items.extend(trees(&identity));
        }
        for (identity, _) in children(&root.join("cachemounts")) {
            items.extend(folders(Kind::CacheMounts, &identity));
        }
        items.extend(folders(Kind::Git, &root.join("git")));
        let merged = root.join("tmp").join(MERGED);
        items.extend(folders(Kind::Merged, &merged));
        let work = folders(Kind::Work, &root.join("tmp")).into_iter();
        items.extend(work.filter(|item| item.path != merged));
        let others = children(root).into_iter();
        for (path, found) in others.filter(|(path, found)| found.is_dir() && !is_known(path)) {
            items.push(Item {
                kind: Kind::Work,
                bytes: below(&path, &found),
                used: modified(&found),
                path,
            });
        }
        items
    }

    /// Gives what a folder takes of the disk. Blocks.
    pub(crate) fn bytes_of(&self, folder: &Path) -> u64 {
        fs::symlink_metadata(folder).map_or(0, |found| below(folder, &found))
    }

    /// Gives what the store takes of the disk. Blocks.
    pub fn bytes_on_disk(&self) -> u64 {
        self.items().iter().map(|item| item.bytes).sum()
    }
}

/// Tells whether a folder of the store is counted thing by thing, or takes nothing.
fn is_known(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let counted = [
        "blobs",
        "tocs",
        "layers",
        "cachemounts",
        "git",
        "locks",
        "tmp",
    ];
    counted.contains(&&*name) || RECORDS.contains(&&*name)
}

fn children(folder: &Path) -> Vec<(PathBuf, Metadata)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // What goes away meanwhile is not there.
    let found = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    found.collect()
}

fn modified(found: &Metadata) -> SystemTime {
    found.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn files(kind: Kind, folder: &Path) -> Vec<Item> {
    let all = children(folder).into_iter();
    all.filter(|(_, found)| found.is_file())
        .map(|(path, found)| Item {
            kind,
            path,
            bytes: on_disk(&found),
            used: modified(&found),
        })
        .collect()
}

fn folders(kind: Kind, folder: &Path) -> Vec<Item> {
    let all = children(folder).into_iter();
    all.map(|(path, found)| Item {
        kind,
        bytes: below(&path, &found),
        used: modified(&found),
        path,
    })
    .collect()
}

/// A tree never changes, so its size is counted once and kept beside it.
fn trees(identity: &Path) -> Vec<Item> {
    let all = children(identity).into_iter();
    all.filter(|(_, found)| found.is_dir())
        .map(|(path, found)| Item {
            kind: Kind::Trees,
            bytes: tree_bytes(&path, &found),
            used: used::tree_used(&path, &found),
            path,
        })
        .collect()
}

fn tree_bytes(tree: &Path, found: &Metadata) -> u64 {
    let kept = size_of(tree);
    let read = fs::read_to_string(&kept).ok();
    if let Some(bytes) = read.and_then(|text| text.parse().ok()) {
        return bytes;
    }
    let bytes = below(tree, found);
    if let Err(error) = fs::write(&kept, bytes.to_string()) {
        tracing::debug!(path = %kept.display(), %error, "the size of a tree is not kept");
    }
    bytes
}

/// Gives the file that says how large a tree is.
pub(super) fn size_of(tree: &Path) -> PathBuf {
    tree.with_extension("size")
}

fn on_disk(found: &Metadata) -> u64 {
    found.blocks() * 512
}

/// What the name of a reservation begins with: it counts by its length.
pub(super) const RESERVED: &str = "reserved-";

/// Gives how much is reserved by all processes and perhaps not yet written.
pub(super) fn reserved(root: &Path) -> u64 {
    let scratch = children(&root.join("tmp")).into_iter();
    let files = scratch.flat_map(|(folder, _)| children(&folder));
    files
        .filter(|(path, _)| is_reservation(path))
        .map(|(_, found)| found.len())
        .sum()
}

fn is_reservation(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.starts_with(RESERVED.as_bytes())
}

/// Gives what a file or folder takes with everything in it; links count once for each name.
fn below(path: &Path, found: &Metadata) -> u64 {
    let mut bytes = on_disk(found);
    let mut folders = match found.is_dir() {
        true => vec![path.to_owned()],
        false => Vec::new(),
    };
    while let Some(folder) = folders.pop() {
        for (path, found) in children(&folder) {
            bytes += match is_reservation(&path) && found.is_file() {
                true => found.len(),
                false => on_disk(&found),
            };
            if found.is_dir() {
                folders.push(path);
            }
        }
    }
    bytes
}

/// Gives how many bytes the file system of a path has left for us.
pub(super) fn free(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
