//! What a step sees where it has no mounts: a plain tree, and other places shown in it.
//!
//! ```text
//! /                  the tree
//! /proc              the machine's, as far as it is about the step (see `proc`)
//! /dev, /sys         places, like those that the specification asks for
//! ```
//!
//! Places need not exist in the tree. A place inside of another wins.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::fstat;
use rustix::io::Errno;

use super::guest::path_of;
use super::resolve::Origin;

/// What the kernel adds to the path of a file that has none any more.
pub(super) const DELETED: &[u8] = b" (deleted)";

/// A place at which something else than the tree is seen.
#[derive(Debug)]
pub(super) struct Place {
    /// Where the step sees it.
    pub(super) inside: Vec<u8>,
    /// Where it is on the machine.
    pub(super) outside: Vec<u8>,
    /// What is seen.
    pub(super) file: OwnedFd,
    /// The numbers by which the kernel knows it.
    number: (u64, u64),
    /// Where files in it belong.
    pub(super) origin: Origin,
}

/// The tree and all places.
#[derive(Debug)]
pub(super) struct Tree {
    /// Where the tree is on the machine.
    outside: Vec<u8>,
    places: Vec<Place>,
}

impl Place {
    pub(super) fn new(inside: PathBuf, file: OwnedFd, origin: Origin) -> Result<Self, Errno> {
        Ok(Self {
            inside: inside.into_os_string().into_vec(),
            outside: path_of(&file)?.into_vec(),
            number: number_of(&file)?,
            file,
            origin,
        })
    }
}

impl Tree {
    pub(super) fn new(root: impl AsFd, places: Vec<Place>) -> Result<Self, Errno> {
        Ok(Self {
            outside: path_of(root)?.into_vec(),
            places,
        })
    }

    /// The place at exactly this path.
    pub(super) fn place(&self, inside: &[u8]) -> Option<&Place> {
        // The last one that was made covers those before.
        self.places
            .iter()
            .rev()
            .find(|place| place.inside == inside)
    }

    /// Whether a path without links leads into the tree and to nothing else. The path is
    /// absolute and has no `.` and `..`.
    pub(super) fn is_plain(&self, inside: &[u8]) -> bool {
        let below = |place: &Place| is_below(inside, &place.inside);
        !is_below(inside, b"/proc") && !self.places.iter().any(below)
    }

    /// Where something on the machine is seen by the step, if it is seen at all, and what
    /// it belongs to. Paths are as the kernel shows them.
    pub(super) fn inside(&self, outside: &[u8]) -> Option<(Vec<u8>, Origin)> {
        let outside = outside.strip_suffix(DELETED).unwrap_or(outside);
        let places = self.places.iter().filter_map(|place| {
            let rest = below(outside, &place.outside)?;
            Some((place.outside.len(), &place.inside, place.origin, rest))
        });
        let root = below(outside, &self.outside)
            .map(|rest| (self.outside.len(), &ROOT_PATH, Origin::Step, rest));
        let (_, inside, origin, rest) = places.chain(root).max_by_key(|(length, ..)| *length)?;
        let inside = inside.strip_suffix(b"/").unwrap_or(inside);
        let path = [inside, rest].concat();
        let path = if path.is_empty() { b"/".to_vec() } else { path };
        Some((path, origin))
    }

    /// What a file belongs to that is itself shown at a place.
    pub(super) fn origin_of(&self, file: impl AsFd) -> Result<Option<Origin>, Errno> {
        let number = number_of(file)?;
        let place = self.places.iter().find(|place| place.number == number);
        Ok(place.map(|place| place.origin))
    }

    /// All places.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }
}

/// The device of a file and its number there.
fn number_of(file: impl AsFd) -> Result<(u64, u64), Errno> {
    let stat = fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

static ROOT_PATH: Vec<u8> = Vec::new();

/// What remains of a path below a directory: nothing, or a slash and more.
fn below<'p>(path: &'p [u8], directory: &[u8]) -> Option<&'p [u8]> {
    let directory = directory.strip_suffix(b"/").unwrap_or(directory);
    path.strip_prefix(directory)
        .filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Whether a path is that of a directory or of something in it.
pub(super) fn is_below(path: &[u8], directory: &[u8]) -> bool {
    below(path, directory).is_some()
}

/// The names of a path, without empty ones and `.`.
pub(super) fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

/// An absolute path without `.` and doubled slashes, if it has no `..` that only a walk
/// could follow.
pub(super) fn plain(path: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(path.len());
    for name in names(path) {
        if name == b".." {
            return None;
        }
        plain.push(b'/');
        plain.extend(name);
    }
    if plain.is_empty() {
        plain.push(b'/');
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, OFlags, openat};
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        openat(CWD, path, OFlags::PATH, Mode::empty()).expect("it is there")
    }

    #[test]
    fn what_is_outside_is_seen_inside() {
        let machine = tempfile::tempdir().expect("a directory");
        let at = |name: &str| machine.path().join(name);
        for name in ["root", "root/tmp", "cache", "cache/deep"] {
            std::fs::create_dir(at(name)).expect("a directory");
        }
        let bind = |target: &str, name: &str| {
            let origin = Origin::Bind { writable: true };
            Place::new(target.into(), open(&at(name)), origin).expect("a place")
        };
        let binds = vec![
            bind("/var/cache", "cache"),
            bind("/var/cache/x", "root/tmp"),
        ];
        let tree = Tree::new(open(&at("root")), binds).expect("a tree");
        let seen = |name: &str| {
            let outside = at(name).into_os_string().into_vec();
            tree.inside(&outside)
                .map(|(path, _)| String::from_utf8_lossy(&path).into_owned())
        };
        assert_eq!(seen("root").as_deref(), Some("/"));
        assert_eq!(seen("root/a/b").as_deref(), Some("/a/b"));
        assert_eq!(seen("root/tmp/b").as_deref(), Some("/var/cache/x/b"));
        assert_eq!(seen("cache/deep").as_deref(), Some("/var/cache/deep"));
        assert_eq!(seen("cachet"), None);
        assert_eq!(seen(""), None);
        assert!(tree.is_plain(b"/var/cached") && !tree.is_plain(b"/var/cache"));
        assert!(!tree.is_plain(b"/var/cache/y") && !tree.is_plain(b"/proc/1"));
    }

    #[test]
    fn plain_paths_need_no_walk() {
        assert_eq!(plain(b"//a/./b/"), Some(b"/a/b".to_vec()));
        assert_eq!(plain(b"/"), Some(b"/".to_vec()));
        assert_eq!(plain(b"/a/../b"), None);
    }
}
