//! Remembers the digests of files that have not changed since they were last read.
//!
//! A file is known by device, inode, size, mtime and ctime. A ctime cannot be set
//! back, so an edit is always seen — unless it happens within one tick of the clock
//! after the file was read. Files as young as that are therefore not remembered.
//!
//! On disk: `OCIHASH`, a version byte, the CRC-32 of the rest (little-endian), then the
//! rows in postcard.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::walk::size;
use crate::layer::{ByPath, TreePath};
use crate::registry::Digest;

/// A clock tick of the coarsest file system that we expect (FAT counts in 2 s).
const SETTLED: Duration = Duration::from_secs(2);

const MAGIC: &[u8; 8] = b"OCIHASH\x01";

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
    pub(super) fn of(meta: &Stat) -> Self {
        // Fewer than a thousand million, so they always fit.
        let nanos = |nanos| i64::try_from(nanos).unwrap_or_default();
        Self {
            dev: meta.st_dev,
            ino: meta.st_ino,
            size: size(meta),
            mtime: (meta.st_mtime, nanos(meta.st_mtime_nsec)),
            ctime: (meta.st_ctime, nanos(meta.st_ctime_nsec)),
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

/// What is known of a file: how it is recognised, and the SHA-256 of its content.
type Known = (Stamp, [u8; 32]);

/// Digests by path and stamp, kept in a file.
#[derive(Debug)]
pub(super) struct Hashes {
    file: Option<PathBuf>,
    known: ByPath<Known>,
    /// What was learned since.
    learned: BTreeMap<TreePath, Known>,
    loaded_at: SystemTime,
}

impl Hashes {
    /// Reads what was remembered; a missing or damaged file is an empty memory.
    pub(super) fn load(file: Option<PathBuf>) -> Self {
        let known = file
            .as_ref()
            .and_then(|file| fs::read(file).ok())
            .and_then(|bytes| read(&bytes))
            .unwrap_or_default();
        Self {
            file,
            known,
            learned: BTreeMap::new(),
            loaded_at: SystemTime::now(),
        }
    }

    /// Gives the digests of files that are as they were; quickest in walk order.
    pub(super) fn get_all(
        &self,
        paths: &[TreePath],
        stamps: &[Option<&Stamp>],
    ) -> Vec<Option<Digest>> {
        let mut next = 0;
        let get = |(path, stamp): (&TreePath, &Option<&Stamp>)| {
            let learned = self.learned.get(path);
            let known = learned.or_else(|| self.known.get_next(&mut next, path));
            known
                .filter(|(known, _)| Some(known) == *stamp)
                .map(|(_, hash)| Digest::from_sha256(*hash))
        };
        paths.iter().zip(stamps).map(get).collect()
    }

    pub(super) fn put(&mut self, path: TreePath, stamp: Stamp, digest: Digest) {
        let Ok(hash) = digest.as_bytes().try_into() else {
            return;
        };
        if stamp.is_settled(self.loaded_at) {
            self.learned.insert(path, (stamp, hash));
        }
    }

    pub(super) fn save(&mut self) {
        if self.learned.is_empty() {
            return;
        }
        let learned = std::mem::take(&mut self.learned);
        let known = std::mem::take(&mut self.known).into_rows();
        let mut rows: BTreeMap<TreePath, Known> = known.into_iter().collect();
        rows.extend(learned);
        self.known = ByPath::from_sorted(rows.into_iter().collect());
        let Some(file) = &self.file else { return };
        if let Err(error) = self.write(file) {
            tracing::debug!(path = %file.display(), %error, "digests of the context are not remembered");
        }
    }

    fn write(&self, file: &std::path::Path) -> std::io::Result<()> {
        let folder = file.parent().unwrap_or(file);
        fs::create_dir_all(folder)?;
        let rows = postcard::to_stdvec(self.known.rows()).map_err(std::io::Error::other)?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(MAGIC)?;
        temporary.write_all(&crc32fast::hash(&rows).to_le_bytes())?;
        temporary.write_all(&rows)?;
        temporary.persist(file)?;
        Ok(())
    }
}

/// Reads the form for the disk; nothing where it was cut, changed or written by another version.
fn read(bytes: &[u8]) -> Option<ByPath<Known>> {
    let (sum, rows) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
    if crc32fast::hash(rows) != u32::from_le_bytes(*sum) {
        return None;
    }
    let rows: Vec<(TreePath, Known)> = postcard::from_bytes(rows).ok()?;
    rows.is_sorted_by(|(a, _), (b, _)| a < b)
        .then(|| ByPath::from_sorted(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(size: u64) -> Stamp {
        Stamp {
            dev: 1,
            ino: 2,
            size,
            mtime: (3, 4),
            ctime: (5, 6),
        }
    }

    fn path(name: &str) -> TreePath {
        TreePath::parse(name).unwrap()
    }

    #[test]
    fn what_was_learned_is_there_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/memory");
        let digest = Digest::sha256(b"content");
        let get = |hashes: &Hashes, name: &str, stamp: &Stamp| {
            hashes.get_all(&[path(name)], &[Some(stamp)])[0]
        };
        for round in 0..2_usize {
            let mut hashes = Hashes::load(Some(file.clone()));
            for name in ["a", "b"].iter().take(2 * round) {
                assert_eq!(get(&hashes, name, &stamp(7)), Some(digest));
                assert_eq!(get(&hashes, name, &stamp(8)), None, "another size");
            }
            for name in ["b", "a"] {
                hashes.put(path(name), stamp(7), digest);
                assert_eq!(get(&hashes, name, &stamp(7)), Some(digest));
            }
            hashes.save();
            assert_eq!(get(&hashes, "a", &stamp(7)), Some(digest));
        }
    }

    #[test]
    fn a_damaged_memory_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory");
        let mut hashes = Hashes::load(Some(file.clone()));
        hashes.put(path("a"), stamp(7), Digest::sha256(b"content"));
        hashes.save();
        let whole = fs::read(&file).unwrap();
        assert_eq!(read(&whole).unwrap().rows().len(), 1);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            assert!(read(&changed).is_none(), "byte {at}");
            assert!(read(&whole[..at]).is_none(), "the first {at} bytes");
        }
    }
}
