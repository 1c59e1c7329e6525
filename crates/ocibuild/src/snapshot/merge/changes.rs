//! What became of a plain tree, as an upper directory of overlayfs would show it.
//!
//! Two tables are compared, name by name. What is new or not the same inode in the same
//! state is copied with the directories above it; what is gone becomes a whiteout. A
//! directory that was replaced needs no opaque note: each of its names that is gone is
//! hidden for itself.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, fstat, mkdirat, statat};

use super::copy::Copier;
use super::parallel::each;
use super::pristine::Pristine;
use super::table::{Entry, Table};
use crate::executor::{Identity, Notes};
use crate::layer::{self, TreePath};
use crate::snapshot::Error;
use crate::snapshot::beneath::{Beneath, Links, name_of};
use crate::snapshot::error::At;
use crate::snapshot::whiteout::hide;

/// How many changes a thread takes at once; they lie side by side.
const CHUNK: usize = 64;

/// What is to be made in the upper directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Dir,
    Copy,
    Whiteout,
}

/// Changes in walk order.
pub(super) type Changes = BTreeMap<TreePath, Change>;

/// Compares a tree as it was and as it is.
pub(super) fn compare(
    before: &Table,
    after: &Table,
    exclude: &BTreeSet<TreePath>,
    pristine: &Pristine<'_>,
) -> Result<Changes, Error> {
    let mut comparison = Comparison {
        before,
        after,
        exclude,
        with_excluded: exclude.iter().filter_map(TreePath::parent).collect(),
        pristine,
        todo: vec![(TreePath::root(), Some(0), Some(0))],
        changes: Changes::new(),
    };
    while let Some((path, before, after)) = comparison.todo.pop() {
        comparison.compare_dir(&path, before, after)?;
    }
    let mut changes = comparison.changes;
    let above: BTreeSet<TreePath> = changes.keys().flat_map(TreePath::ancestors).collect();
    for dir in above.into_iter().filter(|dir| !dir.is_root()) {
        changes.entry(dir).or_insert(Change::Dir);
    }
    Ok(changes)
}

struct Comparison<'a> {
    before: &'a Table,
    after: &'a Table,
    exclude: &'a BTreeSet<TreePath>,
    /// The directories of what is excluded.
    with_excluded: HashSet<TreePath>,
    pristine: &'a Pristine<'a>,
    /// Directories, and their numbers in both tables.
    todo: Vec<(TreePath, Option<u32>, Option<u32>)>,
    changes: Changes,
}

impl<'a> Comparison<'a> {
    fn compare_dir(
        &mut self,
        path: &TreePath,
        before: Option<u32>,
        after: Option<u32>,
    ) -> Result<(), Error> {
        let entries =
            |table: &'a Table, dir: Option<u32>| dir.map_or(&[][..], |dir| table.dir(dir));
        let (mut before, mut after) = (
            entries(self.before, before).iter().peekable(),
            entries(self.after, after).iter().peekable(),
        );
        let has_excluded = self.with_excluded.contains(path);
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(before), Some(after)) => before.name.cmp(&after.name),
            };
            let was = before.next_if(|_| order.is_le());
            let is = after.next_if(|_| order.is_ge());
            self.compare_entry(path, was, is, has_excluded)?;
        }
    }

    fn compare_entry(
        &mut self,
        dir: &TreePath,
        was: Option<&Entry>,
        is: Option<&Entry>,
        has_excluded: bool,
    ) -> Result<(), Error> {
        let below = (was.and_then(|was| was.below), is.and_then(|is| is.below));
        let is_same = was.map(|was| was.fact) == is.map(|is| is.fact);
        if is_same && below == (None, None) {
            return Ok(());
        }
        let Some(name) = was.or(is).map(|entry| &entry.name) else {
            return Ok(());
        };
        let path = dir.join(name).map_err(layer::Error::from)?;
        if has_excluded && self.exclude.contains(&path) {
            return Ok(());
        }
        let change = match (was, is) {
            _ if is_same => None,
            (_, None) => Some(Change::Whiteout),
            (_, Some(is)) if is.fact.is_dir() => Some(Change::Dir),
            (Some(was), Some(is))
                if self.pristine.lost_names_only(&path, &was.fact, &is.fact)? =>
            {
                None
            }
            (_, Some(_)) => Some(Change::Copy),
        };
        if let Some(change) = change {
            self.changes.insert(path.clone(), change);
        }
        // Nothing is left below what is no directory any more.
        if below.1.is_some() {
            self.todo.push((path, below.0, below.1));
        }
        Ok(())
    }
}

/// Makes the changes in an empty directory.
pub(super) fn fill(
    tree: &Beneath,
    upper: &Path,
    changes: &Changes,
    (identity, notes): (&Identity, Notes),
) -> Result<(), Error> {
    let filler = Filler {
        tree,
        notes,
        upper: Beneath::open(upper).at_host("open", upper)?,
        copier: Copier::new(identity),
    };
    let root = TreePath::root();
    let of = |wanted: Change| changes.iter().filter(move |(_, change)| **change == wanted);
    let dirs: Vec<&TreePath> = of(Change::Dir).map(|(path, _)| path).collect();
    for path in &dirs {
        let parent = filler.open(&filler.upper, path)?;
        mkdirat(&parent, name_of(path), Mode::RWXU).at("create", path)?;
    }
    let others: Vec<(&TreePath, Change)> = changes
        .iter()
        .filter(|(_, change)| **change != Change::Dir)
        .map(|(path, change)| (path, *change))
        .collect();
    each(others.chunks(CHUNK).collect(), |chunk, _| {
        filler.make(chunk)
    })?;
    filler.copier.link_all(&filler.upper)?;
    let dirs: Vec<&TreePath> = dirs.into_iter().chain([&root]).collect();
    each(dirs.chunks(CHUNK).collect(), |chunk, _| {
        chunk.iter().try_for_each(|path| filler.finish_dir(path))
    })
}

struct Filler<'a> {
    tree: &'a Beneath,
    notes: Notes,
    upper: Beneath,
    copier: Copier,
}

impl Filler<'_> {
    /// Opens the directory of a path.
    fn open(&self, tree: &Beneath, path: &TreePath) -> Result<OwnedFd, Error> {
        let parent = path.parent().unwrap_or_else(TreePath::root);
        tree.dir(&parent, Links::Refuse).at("open", &parent)
    }

    fn make(&self, chunk: &[(&TreePath, Change)]) -> Result<(), Error> {
        let mut last: Option<(TreePath, OwnedFd, OwnedFd)> = None;
        for (path, change) in chunk {
            let parent = path.parent().unwrap_or_else(TreePath::root);
            let is_there = last.as_ref().is_some_and(|(dir, ..)| *dir == parent);
            let (_, to, from) = match last.take().filter(|_| is_there) {
                Some(open) => last.insert(open),
                None => {
                    let to = self.open(&self.upper, path)?;
                    // Only of something that is there is there a directory to copy from.
                    let from = self.open(self.tree, path)?;
                    last.insert((parent, to, from))
                }
            };
            let name = name_of(path);
            if *change == Change::Whiteout {
                hide(to.as_fd(), name, self.notes).at("hide", path)?;
                continue;
            }
            let stat = statat(from.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).at("look at", path)?;
            self.copier
                .copy((0, from.as_fd()), to.as_fd(), path, &stat)?;
        }
        Ok(())
    }

    fn finish_dir(&self, path: &TreePath) -> Result<(), Error> {
        let open = |tree: &Beneath| tree.dir(path, Links::Refuse).at("open", path);
        let (from, to) = (open(self.tree)?, open(&self.upper)?);
        let stat = fstat(&from).at("look at", path)?;
        self.copier.finish(&from, &to, path, &stat)
    }
}
