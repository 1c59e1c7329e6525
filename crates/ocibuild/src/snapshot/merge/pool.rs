//! Plain trees that wait for the next step of their chain.
//!
//! ```text
//! <pool>/<key>-<process>-<nanoseconds>/tree/    the tree
//!                                      table    what it looked like at the end
//! ```
//!
//! Renaming an entry out of the pool takes it, and renaming it in gives it back, whole.
//! The key tells boot, kind of tree and chain of layers; a layer is known by its
//! directory, which keeps inode and time of birth when it is renamed.

use std::fmt::Write;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::table::Table;
use crate::executor::remove::remove_tree;
use crate::executor::{Identity, Notes};
use crate::registry::Digest;

/// Changes with the format of the tables and with what trees hold.
const VERSION: u32 = 1;

/// How many trees wait in a pool at most.
const LIMIT: usize = 4;

/// The file beside a tree.
const TABLE: &str = "table";

/// What the names of entries that are being removed end with; no other has an extension.
const GONE: &str = "gone";

/// Which trees a step can go on with.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    kind: String,
    layers: Vec<LayerId>,
}

/// A directory on this machine since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LayerId {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
}

impl Chain {
    /// Gives the chain of these layers; `None` where it cannot be told from others.
    pub(super) fn of(lowers: &[PathBuf], identity: &Identity, notes: Notes) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let layers = lowers.iter().map(|lower| LayerId::of(lower));
        Some(Self {
            kind: format!("{VERSION} {boot} {identity:?} {notes:?}\n"),
            layers: layers.collect::<Option<_>>()?,
        })
    }

    /// Gives the chain with one more layer.
    pub(super) fn with(mut self, upper: &Path) -> Option<Self> {
        self.layers.push(LayerId::of(upper)?);
        Some(self)
    }

    fn key(&self) -> String {
        let mut text = self.kind.clone();
        for layer in &self.layers {
            let (device, born) = (layer.device, layer.born);
            let _ = writeln!(text, "{device:?} {} {born:?}", layer.inode);
        }
        Digest::sha256(text.as_bytes()).hex()
    }
}

impl LayerId {
    fn of(dir: &Path) -> Option<Self> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let found = statx(CWD, dir, AtFlags::empty(), wanted).ok()?;
        let has_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        has_birth.then_some(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
        })
    }
}

/// Takes a tree of the chain out of the pool, if there is one: `place` is its entry then.
pub(super) fn claim(pool: &Path, chain: &Chain, place: &Path) -> Option<Table> {
    let key = chain.key();
    for entry in fs::read_dir(pool).ok()?.flatten() {
        let is_ours = entry.file_name().as_bytes().starts_with(key.as_bytes())
            && entry.path().extension().is_none();
        // Another process may be faster.
        if !is_ours || fs::rename(entry.path(), place).is_err() {
            continue;
        }
        let table = place.join(TABLE);
        let read = fs::read(&table).ok();
        if let Some(table) = read.and_then(|bytes| postcard::from_bytes(&bytes).ok())
            && fs::remove_file(place.join(TABLE)).is_ok()
        {
            return Some(table);
        }
        remove(place);
    }
    None
}

/// Puts the entry at `place` into the pool; the ones that have waited longest go.
pub(super) fn put(pool: &Path, chain: &Chain, place: &Path, table: &Table) -> io::Result<()> {
    let bytes = postcard::to_stdvec(table).map_err(io::Error::other)?;
    fs::write(place.join(TABLE), bytes)?;
    fs::create_dir_all(pool)?;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let (key, process) = (chain.key(), std::process::id());
    fs::rename(
        place,
        pool.join(format!("{key}-{process}-{}", now.as_nanos())),
    )?;
    trim(pool);
    Ok(())
}

/// Whoever takes the last names of what is too much removes it; what cannot be removed
/// now goes another time.
fn trim(pool: &Path) {
    let Ok(entries) = fs::read_dir(pool) else {
        return;
    };
    let is_gone = |entry: &DirEntry| entry.path().extension().is_some();
    let (gone, waiting): (Vec<_>, Vec<_>) = entries.flatten().partition(is_gone);
    let since = |entry: &DirEntry| entry.metadata().and_then(|it| it.modified()).ok();
    let mut waiting: Vec<_> = waiting.iter().map(|it| (since(it), it.path())).collect();
    waiting.sort();
    let surplus = waiting.len().saturating_sub(LIMIT);
    for (_, path) in waiting.drain(..surplus) {
        let hidden = path.with_extension(GONE);
        if fs::rename(&path, &hidden).is_ok() {
            remove(&hidden);
        }
    }
    gone.iter().for_each(|entry| remove(&entry.path()));
}

/// Removes a tree; one that stays is only in the way of the disk.
pub(super) fn remove(path: &Path) {
    if let Err(error) = remove_tree(path.as_os_str().as_bytes()) {
        tracing::debug!(%error, "a merged tree stays");
    }
}
