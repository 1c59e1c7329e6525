//! The table of contents of one layer: everything but the bytes of its files.
//!
//! On disk: `OCITOC`, a version byte, the CRC-32 of the rest (little-endian), then
//! the table in postcard. A file that was cut, changed or written by another
//! version is an error, and the caller makes the table again from the blob.

use serde::{Deserialize, Serialize};

pub use super::accounts::AccountFiles;
use super::{Entry, Error, TreePath};

const MAGIC: &[u8; 6] = b"OCITOC";
const VERSION: u8 = 1;
const HEADER: usize = MAGIC.len() + 1 + 4;

/// What a layer holds and what it removes.
///
/// Entries stand in walk order, each path once; every entry but the root has its
/// parent directory as an entry, an implicit one if the tar had none; a hard link
/// names a file entry. Whiteouts and opaque marks concern lower layers only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toc {
    pub(super) entries: Vec<Entry>,
    pub(super) whiteouts: Vec<TreePath>,
    pub(super) opaques: Vec<TreePath>,
    pub(super) accounts: AccountFiles,
}

impl Toc {
    /// Makes a table of entries that removes nothing. They must stand as the type says:
    /// in walk order, each path once, parents included.
    pub fn from_entries(entries: Vec<Entry>) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| a.path < b.path));
        Self {
            entries,
            ..Self::default()
        }
    }

    /// Gives the entries in walk order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Gives the paths of lower layers that this layer removes, in walk order.
    pub fn whiteouts(&self) -> &[TreePath] {
        &self.whiteouts
    }

    /// Gives the directories whose content in lower layers this layer removes, in walk order.
    pub fn opaques(&self) -> &[TreePath] {
        &self.opaques
    }

    /// Gives the kept account files.
    pub fn accounts(&self) -> &AccountFiles {
        &self.accounts
    }

    /// Tells whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.whiteouts.is_empty()
            && self.opaques.is_empty()
            && self.entries.iter().all(|entry| entry.implicit)
    }

    /// Finds the entry at a path.
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| entry.path.cmp(path));
        at.ok().and_then(|index| self.entries.get(index))
    }

    /// Tells whether the layer removes this path of lower layers.
    pub fn removes(&self, path: &TreePath) -> bool {
        self.whiteouts.binary_search(path).is_ok()
    }

    /// Tells whether the layer removes what lower layers have in this directory.
    pub fn is_opaque(&self, path: &TreePath) -> bool {
        self.opaques.binary_search(path).is_ok()
    }

    /// Gives everything below a directory, in walk order.
    pub fn below(&self, path: &TreePath) -> &[Entry] {
        let start = self.entries.partition_point(|entry| entry.path <= *path);
        let rest = &self.entries[start..];
        &rest[..rest.partition_point(|entry| entry.path.starts_with(path))]
    }

    /// Gives the entries directly in a directory, in walk order.
    pub fn children(&self, path: &TreePath) -> impl Iterator<Item = &Entry> {
        let mut rest = self.below(path);
        std::iter::from_fn(move || {
            let (child, after) = rest.split_first()?;
            rest = if child.kind.is_dir() {
                &after[after.partition_point(|entry| entry.path.starts_with(&child.path))..]
            } else {
                after
            };
            Some(child)
        })
    }

    /// Gives the form for the disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        bytes.extend([0; 4]);
        let mut bytes = postcard::to_extend(self, bytes)
            .expect("a table of plain values can always be written to memory");
        let sum = crc32fast::hash(&bytes[HEADER..]).to_le_bytes();
        bytes[HEADER - sum.len()..HEADER].copy_from_slice(&sum);
        bytes
    }

    /// Reads the form for the disk.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = Error::DamagedToc;
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or(damaged("it does not begin as one"))?;
        let (&version, rest) = rest.split_first().ok_or(damaged("it is cut off"))?;
        if version != VERSION {
            return Err(damaged("it has another version"));
        }
        let (sum, body) = rest
            .split_first_chunk::<4>()
            .ok_or(damaged("it is cut off"))?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return Err(damaged("its checksum is wrong"));
        }
        let toc: Self = postcard::from_bytes(body).map_err(|_| damaged("it cannot be decoded"))?;
        let sorted = toc.entries.is_sorted_by(|a, b| a.path < b.path)
            && toc.whiteouts.is_sorted_by(|a, b| a < b)
            && toc.opaques.is_sorted_by(|a, b| a < b);
        if !sorted {
            return Err(damaged("it is not in order"));
        }
        Ok(toc)
    }
}
