//! One plain directory in place of an overlay, for engines that may not mount.
//!
//! The layers of a step are joined in a directory in which its command works. Afterwards
//! one walk over the metadata shows what it changed, which is copied to an upper
//! directory as overlayfs would have left it. The tree itself goes on with the next step
//! of the chain, so that only the first one pays for the copy:
//!
//! ```text
//! lowers ── copy ──> place/tree ── command ──> place/tree ── changes ──> upper
//!                        ^                        │
//!                        └──────── pool <─────────┘   with the table of the last walk
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

mod changes;
mod copy;
mod layers;
mod parallel;
mod pool;
mod pristine;
mod table;

use self::pool::Chain;
use self::pristine::Pristine;
use self::table::{Fact, Table};
use super::beneath::Links;
use super::error::At;
use super::{Beneath, Error};
use crate::executor::{Identity, Notes};
use crate::layer::TreePath;

/// The usual name of a pool, in the folder for work in progress of a store.
pub const POOL: &str = "merged";

/// What trees are made of and where they wait.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose ids are on the disk.
    pub identity: Identity,
    /// Where the layers have the notes of overlayfs.
    pub notes: Notes,
    /// The directory in which trees wait for the next step of their chain, on the same
    /// file system; without one every tree is made anew.
    pub pool: Option<PathBuf>,
}

/// A plain tree that shows what its layers show together.
///
/// It is gone when this is dropped, unless it is given back.
#[derive(Debug)]
pub struct Merged {
    place: PathBuf,
    tree: PathBuf,
    lowers: Vec<PathBuf>,
    options: Options,
    chain: Option<Chain>,
    /// What the tree looked like before the command.
    table: Table,
    was_waiting: bool,
}

impl Merged {
    /// Makes the tree of `lowers`, lowest first, in the new directory `place`, or takes
    /// one that the last step of the same chain has left.
    pub fn take(place: &Path, lowers: &[PathBuf], options: &Options) -> Result<Self, Error> {
        let chain = match options.pool {
            Some(_) => Chain::of(lowers, &options.identity, options.notes),
            None => None,
        };
        let waiting = options
            .pool
            .as_ref()
            .zip(chain.as_ref())
            .and_then(|(pool, chain)| pool::claim(pool, chain, place));
        let mut merged = Self {
            place: place.to_owned(),
            tree: place.join("tree"),
            lowers: lowers.to_vec(),
            options: options.clone(),
            chain,
            was_waiting: waiting.is_some(),
            table: waiting.unwrap_or_default(),
        };
        if !merged.was_waiting {
            merged.make()?;
        }
        Ok(merged)
    }

    fn make(&mut self) -> Result<(), Error> {
        for path in [&self.place, &self.tree] {
            fs::create_dir(path).at_host("create", path)?;
        }
        let (identity, notes) = (&self.options.identity, self.options.notes);
        layers::merge(&self.lowers, &self.tree, identity, notes)?;
        self.table = Table::read(&self.open()?)?;
        wait_for_clock(self.table.last_change());
        Ok(())
    }

    fn open(&self) -> Result<Beneath, Error> {
        Beneath::open(&self.tree).at_host("open", &self.tree)
    }

    /// Gives the root of the tree.
    pub fn path(&self) -> &Path {
        &self.tree
    }

    /// Tells whether the tree was left by an earlier step, not made anew.
    pub fn was_waiting(&self) -> bool {
        self.was_waiting
    }

    /// Gives how many entries the tree had when they were counted last.
    pub fn entries(&self) -> usize {
        self.table.len()
    }

    /// Takes note of directories in which the caller itself has made or removed something:
    /// as they are now they have not changed. What is new or not there is passed over.
    pub fn settle(&mut self, dirs: &[TreePath]) -> Result<(), Error> {
        let tree = self.open()?;
        for dir in dirs {
            if let (Some(known), Some(now)) = (self.table.fact(dir), fact(&tree, dir)?) {
                *known = now;
            }
        }
        Ok(())
    }

    /// Tells whether nobody has changed a directory itself since it was noted.
    pub fn is_settled(&mut self, dir: &TreePath) -> Result<bool, Error> {
        let now = fact(&self.open()?, dir)?;
        Ok(self.table.fact(dir).map(|known| *known) == now)
    }

    /// Puts what has changed in the tree into the empty directory `upper`, as overlayfs
    /// would have left it there, but for the excluded paths and what is below them. The
    /// tree is not being used any more. Gives the number of changes.
    pub fn changes_into(
        &mut self,
        upper: &Path,
        exclude: &BTreeSet<TreePath>,
    ) -> Result<usize, Error> {
        let tree = self.open()?;
        let after = Table::read(&tree)?;
        let pristine = Pristine {
            tree: &tree,
            lowers: &self.lowers,
        };
        let changes = changes::compare(&self.table, &after, exclude, &pristine)?;
        let kind = (&self.options.identity, self.options.notes);
        changes::fill(&tree, upper, &changes, kind)?;
        self.table = after;
        self.lowers.push(upper.to_owned());
        self.chain = self.chain.take().and_then(|chain| chain.with(upper));
        Ok(changes.len())
    }

    /// Leaves the tree for the next step, whose layers are those of this one and the
    /// upper directory that was filled last. That may be renamed but not copied.
    pub fn give_back(self) -> Result<(), Error> {
        if let (Some(pool), Some(chain)) = (&self.options.pool, &self.chain) {
            pool::put(pool, chain, &self.place, &self.table).at_host("keep", &self.tree)?;
        }
        Ok(())
    }
}

/// What there is to know of a directory; none where there is no such directory.
fn fact(tree: &Beneath, path: &TreePath) -> Result<Option<Fact>, Error> {
    match tree.dir(path, Links::Refuse) {
        Ok(dir) => {
            let stat = rustix::fs::fstat(&dir).at("look at", path)?;
            Ok(Some(Fact::of(&stat)))
        }
        // The command may have made anything of it.
        Err(_) => Ok(None),
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        if self.place.exists() {
            pool::remove(&self.place);
        }
    }
}

/// How far the clock for times of change may lag behind, in kernels older than 6.13.
const CLOCK_STEP: Duration = Duration::from_millis(10);

/// Waits until the next change must have another time than the last one.
fn wait_for_clock((seconds, nanoseconds): (i64, u32)) {
    let last = Duration::new(seconds.try_into().unwrap_or_default(), nanoseconds);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let left = (last + CLOCK_STEP).saturating_sub(now);
    std::thread::sleep(left.min(CLOCK_STEP));
}
