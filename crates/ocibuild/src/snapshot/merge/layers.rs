//! Trees of layers, one over the other, become one plain tree.
//!
//! As overlayfs shows them: of each name the highest one counts, a device 0:0 hides it,
//! directories are joined until one is opaque.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, Stat, fstat, mkdirat, statat};

use super::copy::Copier;
use super::parallel::each;
use super::table::names;
use crate::executor::{Identity, Notes};
use crate::layer::{self, TreePath};
use crate::snapshot::Error;
use crate::snapshot::beneath::{Beneath, Links, name_of};
use crate::snapshot::error::At;
use crate::snapshot::whiteout::{Opacity, is_hidden};

/// Copies what is visible of `lowers`, lowest first, into an empty directory.
pub(super) fn merge(
    lowers: &[PathBuf],
    dest: &Path,
    identity: &Identity,
    notes: Notes,
) -> Result<(), Error> {
    let open = |path: &PathBuf| Beneath::open(path).at_host("open", path);
    let merger = Merger {
        lowers: lowers.iter().map(open).collect::<Result<_, _>>()?,
        dest: Beneath::open(dest).at_host("open", dest)?,
        copier: Copier::new(identity),
        notes,
    };
    let all = (0..lowers.len()).rev().collect();
    each(vec![(TreePath::root(), all)], |(path, live), more| {
        merger.fill(&path, live, more)
    })?;
    merger.copier.link_all(&merger.dest)
}

struct Merger {
    lowers: Vec<Beneath>,
    dest: Beneath,
    copier: Copier,
    notes: Notes,
}

/// A directory, and the lowers that have one there, highest first.
type Job = (TreePath, Vec<usize>);

/// A directory of one layer.
struct Opened {
    lower: usize,
    dir: OwnedFd,
    opacity: Opacity,
}

/// A name in a directory.
struct Found {
    stat: Stat,
    /// Whether it says that there is nothing.
    is_hidden: bool,
    lower: usize,
    /// The lowers that have a directory of this name, if the highest one has.
    dirs: Vec<usize>,
    /// Whether what is lower still is hidden.
    is_closed: bool,
}

impl Merger {
    /// Fills one directory and leaves those in it for later.
    fn fill(&self, path: &TreePath, live: Vec<usize>, more: &mut Vec<Job>) -> Result<(), Error> {
        let dest = self.dest.dir(path, Links::Refuse).at("open", path)?;
        let opened = self.open(path, live)?;
        let found = self.find(path, &opened)?;
        for (name, found) in found {
            let child = path.join(&name).map_err(layer::Error::from)?;
            if !found.dirs.is_empty() {
                mkdirat(&dest, name_of(&child), Mode::RWXU).at("create", &child)?;
                more.push((child, found.dirs));
            } else if !found.is_hidden
                && let Some(from) = opened.iter().find(|opened| opened.lower == found.lower)
            {
                let from = (found.lower, from.dir.as_fd());
                self.copier.copy(from, dest.as_fd(), &child, &found.stat)?;
            }
        }
        match opened.first() {
            Some(like) => {
                let stat = fstat(&like.dir).at("look at", path)?;
                self.copier.finish(&like.dir, &dest, path, &stat)
            }
            None => Ok(()),
        }
    }

    /// Opens the directory in each lower, down to the first opaque one.
    fn open(&self, path: &TreePath, live: Vec<usize>) -> Result<Vec<Opened>, Error> {
        let mut opened = Vec::with_capacity(live.len());
        for lower in live {
            let Some(tree) = self.lowers.get(lower) else {
                continue;
            };
            let dir = tree.dir(path, Links::Refuse).at("open", path)?;
            let opacity = Opacity::of(&dir, self.notes).at("read the notes of", path)?;
            opened.push(Opened {
                lower,
                dir,
                opacity,
            });
            if opacity == Opacity::Opaque {
                break;
            }
        }
        Ok(opened)
    }

    fn find(
        &self,
        path: &TreePath,
        opened: &[Opened],
    ) -> Result<BTreeMap<Box<[u8]>, Found>, Error> {
        let mut all: BTreeMap<Box<[u8]>, Found> = BTreeMap::new();
        for Opened {
            lower,
            dir,
            opacity,
        } in opened
        {
            names(dir, path, |name| {
                let known = all.get_mut(name);
                if known.as_ref().is_some_and(|known| known.is_closed) {
                    return Ok(());
                }
                let stat = statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
                    .at("look at an entry of", path)?;
                let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                match known {
                    Some(known) if is_dir => known.dirs.push(*lower),
                    Some(known) => known.is_closed = true,
                    None => {
                        let place = (dir.as_fd(), *opacity);
                        let is_hidden = is_hidden(place, name, &stat, self.notes);
                        let found = Found {
                            is_hidden: is_hidden.at("look at an entry of", path)?,
                            stat,
                            lower: *lower,
                            dirs: is_dir.then_some(*lower).into_iter().collect(),
                            is_closed: !is_dir,
                        };
                        all.insert(name.into(), found);
                    }
                }
                Ok(())
            })?;
        }
        Ok(all)
    }
}
