//! Paths in a tree without mounts.
//!
//! Nearly all are found by one call of the kernel, which keeps to the tree. What leads
//! through a place, into /proc or through links is checked, and if need be walked name by
//! name, as the kernel would.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

use super::call::Fault;
use super::guest::{Guest, PATH_MAX, os, path_of};
use super::proc::{self, Process};
use super::resolve::{Follow, Found, Origin, look_up};
use super::tree::{DELETED, Tree, names, plain};

/// How many links a path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

impl Guest<'_> {
    /// Finds what a path leads to.
    pub(super) fn find_in_tree(
        &self,
        directory: i32,
        path: &[u8],
        follow: Follow,
    ) -> Result<Found, Fault> {
        let tree = self.shared.tree()?;
        let path = match self.whole_path(tree, directory, path) {
            Err(Errno::STALE) => return self.find_below(directory, path, follow),
            other => other?,
        };
        if self.cookie.root() == 0
            && let Some(answer) = self.find_at_once(tree, &path, follow)
        {
            return Ok(answer?);
        }
        Ok(Walk::begin(self, tree, follow)?.to(&path)?)
    }

    /// A path from the root on.
    fn whole_path(&self, tree: &Tree, directory: i32, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let whole = if path.starts_with(b"/") {
            match self.root_path() {
                Some(root) => [&root, path].concat(),
                None => return Ok(path.to_vec()),
            }
        } else {
            let base = match directory {
                libc::AT_FDCWD => self.own_path("cwd")?,
                number => self.own_path(&format!("fd/{number}")).map_err(|errno| {
                    if errno == Errno::NOENT {
                        Errno::BADF
                    } else {
                        errno
                    }
                })?,
            };
            if base.as_bytes().ends_with(DELETED) {
                return Err(Errno::STALE);
            }
            let (base, _) = self
                .shared
                .seen_inside(tree, base.as_bytes())
                .ok_or(Errno::NOTDIR)?;
            [&base, &b"/"[..], path].concat()
        };
        if whole.len() > PATH_MAX * 2 {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(whole)
    }

    /// Finds what is left of a directory that was removed: no more than it, and names in it
    /// if it was one only by its path.
    fn find_below(&self, directory: i32, path: &[u8], follow: Follow) -> Result<Found, Fault> {
        let base = match directory {
            libc::AT_FDCWD => self.own("cwd")?,
            number => self.descriptor(number)?,
        };
        let file = self.acting(|| look_up(&base, path, follow, ResolveFlags::BENEATH))?;
        Ok(Found::in_step(file))
    }

    /// The root directory of a process that has changed it, as the others see it.
    pub(super) fn root_path(&self) -> Option<Vec<u8>> {
        match self.cookie.root() {
            0 => None,
            number => self.shared.roots.get(number),
        }
    }

    /// Asks the kernel; gives nothing where the answer may lead elsewhere.
    fn find_at_once(
        &self,
        tree: &Tree,
        path: &[u8],
        follow: Follow,
    ) -> Option<Result<Found, Errno>> {
        let root = &self.shared.root;
        if let Some(lexical) = plain(path) {
            if !tree.is_plain(&lexical) {
                return None;
            }
            let limit = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
            match self.acting(|| look_up(root, path, follow, limit)) {
                Err(Errno::LOOP) => {}
                Err(Errno::AGAIN) => return None,
                other => return Some(other.map(Found::plainly)),
            }
        }
        let file = self
            .acting(|| look_up(root, path, follow, ResolveFlags::IN_ROOT))
            .ok()?;
        let shown = path_of(&file).ok()?;
        let (inside, origin) = tree.inside(shown.as_bytes())?;
        let is_plain = origin == Origin::Step && tree.is_plain(&inside);
        is_plain.then(|| Ok(Found::plainly(file)))
    }

    /// Says what an open file belongs to.
    pub(super) fn belongs(&self, file: OwnedFd) -> Result<Found, Fault> {
        let tree = self.shared.tree()?;
        let shown = path_of(&file)?;
        let seen = self.shared.seen_inside(tree, shown.as_bytes());
        let origin = match seen {
            Some((_, origin)) => origin,
            // Such as a file in memory, which has no path.
            None => tree.origin_of(&file)?.unwrap_or(Origin::Kernel),
        };
        Ok(Found {
            origin,
            ..Found::in_step(file)
        })
    }
}

/// A walk along a path.
struct Walk<'g, 'a> {
    guest: &'g Guest<'a>,
    tree: &'g Tree,
    follow: Follow,
    /// The directories on the way, from the root on.
    way: Vec<Step>,
    /// How many of them cannot be left by `..`.
    root: usize,
    links: usize,
}

/// Where a walk is.
struct Step {
    name: Vec<u8>,
    found: Found,
    /// What of /proc it is.
    process: Option<Process>,
}

impl<'g, 'a> Walk<'g, 'a> {
    fn begin(guest: &'g Guest<'a>, tree: &'g Tree, follow: Follow) -> Result<Self, Errno> {
        let root = guest.shared.root.try_clone().map_err(super::guest::of_io)?;
        let start = Step {
            name: Vec::new(),
            found: Found::in_step(root),
            process: None,
        };
        Ok(Self {
            guest,
            tree,
            follow,
            way: vec![start],
            root: 1,
            links: 0,
        })
    }

    /// Walks along a path and gives what is at its end.
    fn to(mut self, path: &[u8]) -> Result<Found, Errno> {
        let fenced = self.guest.root_path();
        let (inside, path) = match &fenced {
            // The path begins with that of the root.
            Some(root) => (root.as_slice(), path.get(root.len()..).unwrap_or_default()),
            None => (&b""[..], path),
        };
        self.along(inside, false)?;
        self.root = self.way.len();
        self.along(path, true)?;
        self.way.pop().map(|step| step.found).ok_or(Errno::NOENT)
    }

    fn along(&mut self, path: &[u8], may_end: bool) -> Result<(), Errno> {
        let is_directory = path.ends_with(b"/") || path.ends_with(b"/.");
        let mut rest: Vec<Vec<u8>> = names(path).rev().map(<[u8]>::to_vec).collect();
        while let Some(name) = rest.pop() {
            if name == b".." {
                if self.way.len() > self.root {
                    self.way.pop();
                }
                continue;
            }
            let is_last = rest.is_empty() && may_end;
            let next = self.child(&name)?;
            let stays = is_last && self.follow == Follow::No && !is_directory;
            if stays || !is_link(&next.found)? {
                if (!is_last || is_directory) && !is_link(&next.found)? {
                    check_directory(&next.found)?;
                }
                self.way.push(next);
                continue;
            }
            self.links += 1;
            if self.links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            if let Some(Process::Magic(magic)) = &next.process {
                // Such a link leads to a file, wherever that is.
                let found = proc::follow(self.guest, magic)?;
                self.enter(found, &mut rest)?;
                continue;
            }
            let target = match next.found.link {
                Some(target) => target,
                None => readlinkat(&next.found.file, "", Vec::new())?.into_bytes(),
            };
            if target.starts_with(b"/") {
                self.way.truncate(self.root);
            }
            rest.extend(names(&target).rev().map(<[u8]>::to_vec));
        }
        Ok(())
    }

    /// Goes on from a file that is not below where the walk was.
    fn enter(&mut self, found: Found, rest: &mut Vec<Vec<u8>>) -> Result<(), Errno> {
        if rest.is_empty() {
            self.way.push(Step {
                name: Vec::new(),
                found,
                process: None,
            });
            return Ok(());
        }
        let shown = path_of(&found.file)?;
        let (inside, _) = self
            .guest
            .shared
            .seen_inside(self.tree, shown.as_bytes())
            .ok_or(Errno::NOTDIR)?;
        self.way.truncate(self.root);
        rest.extend(names(&inside).rev().map(<[u8]>::to_vec));
        Ok(())
    }

    /// Opens a name in the directory that was reached.
    fn child(&self, name: &[u8]) -> Result<Step, Errno> {
        let current = self.way.last().ok_or(Errno::NOENT)?;
        let step = |found: Found, process| {
            Ok(Step {
                name: name.to_vec(),
                found,
                process,
            })
        };
        if let Some(process) = &current.process {
            let (found, process) = proc::child(self.guest, process, name)?;
            return step(found, Some(process));
        }
        let path: Vec<u8> = self
            .way
            .iter()
            .skip(1)
            .map(|step| step.name.as_slice())
            .chain([name])
            .flat_map(|name| [b"/", name].concat())
            .collect();
        if path == b"/proc" {
            return step(proc::top(self.guest)?, Some(Process::Top));
        }
        if let Some(place) = self.tree.place(&path) {
            let file = place.file.try_clone().map_err(super::guest::of_io)?;
            let found = Found {
                origin: place.origin,
                ..Found::in_step(file)
            };
            return step(found, None);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = current.found.file.as_fd();
        let open = || openat(directory, os(name), flags, Mode::empty());
        let file = self.guest.acting(open)?;
        let found = Found {
            origin: current.found.origin,
            ..Found::in_step(file)
        };
        step(found, None)
    }
}

fn is_link(found: &Found) -> Result<bool, Errno> {
    Ok(found.link.is_some() || kind(found)? == FileType::Symlink)
}

fn check_directory(found: &Found) -> Result<(), Errno> {
    if kind(found)? == FileType::Directory {
        Ok(())
    } else {
        Err(Errno::NOTDIR)
    }
}

fn kind(found: &Found) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(fstat(&found.file)?.st_mode))
}
