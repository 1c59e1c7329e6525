//! One walk over a directory, in the canonical order of names, without what an ignore file
//! leaves out. A folder is read and its files are examined before what is in its folders, so
//! that only one folder is open at a time, however deep they lie.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Stat, readlinkat, statat};

use super::hashes::Stamp;
use super::ignore::{IgnoreMatcher, Verdict};
use super::{Error, at};
use crate::layer::{Content, Entry, Kind, TreePath};
use crate::registry::Digest;
use crate::snapshot::Beneath;
use crate::snapshot::beneath::Links;

/// What a walk finds.
#[derive(Default)]
pub(super) struct Walked {
    /// In the order of a table of contents, the root first.
    pub(super) entries: Vec<Entry>,
    /// What makes each file recognisable, in the same order.
    pub(super) stamps: Vec<(TreePath, Stamp)>,
}

/// Walks through `tree`, whose path is `root`.
pub(super) fn walk(
    tree: &Beneath,
    root: &Path,
    ignore: Option<&IgnoreMatcher>,
) -> Result<Walked, Error> {
    let mut walk = Walk {
        tree,
        root,
        ignore,
        found: Walked::default(),
        first_names: HashMap::new(),
    };
    walk.found.entries.push(Entry::dir(TreePath::root()));
    walk.folder(&TreePath::root(), &Verdict::default())?;
    Ok(walk.found)
}

struct Walk<'a> {
    tree: &'a Beneath,
    root: &'a Path,
    ignore: Option<&'a IgnoreMatcher>,
    found: Walked,
    /// The first name of each file that has several.
    first_names: HashMap<(u64, u64), TreePath>,
}

/// Something in a folder.
struct Child {
    name: CString,
    meta: Stat,
    /// Where it points, if it is a symbolic link.
    target: Option<Vec<u8>>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &TreePath, verdict: &Verdict) -> Result<(), Error> {
        for child in self.children(folder)? {
            let name = folder.join(child.name.as_bytes());
            let name = name.map_err(io::Error::other);
            let name = at(name, "name", || self.shown(folder, &child.name))?;
            self.child(&name, child, verdict)?;
        }
        Ok(())
    }

    /// Reads a folder; sorted by name.
    fn children(&self, folder: &TreePath) -> Result<Vec<Child>, Error> {
        let shown = || self.root.join(folder.as_path());
        let open = self.tree.dir(folder, Links::Refuse);
        let open = at(open, "read the folder", shown)?;
        let names = at(Dir::read_from(&open), "read the folder", shown)?;
        let mut children = Vec::new();
        for name in names {
            let name = at(name, "read the folder", shown)?.file_name().to_owned();
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            let shown = || self.shown(folder, &name);
            let meta = statat(&open, &name, AtFlags::SYMLINK_NOFOLLOW);
            let meta = at(meta, "examine", shown)?;
            let target = match file_type(&meta) {
                FileType::Symlink => {
                    let target = readlinkat(&open, &name, Vec::new());
                    Some(at(target, "read the link", shown)?.into_bytes())
                }
                _ => None,
            };
            children.push(Child { name, meta, target });
        }
        children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(children)
    }

    fn shown(&self, folder: &TreePath, name: &CString) -> std::path::PathBuf {
        let name = OsStr::from_bytes(name.as_bytes());
        self.root.join(folder.as_path()).join(name)
    }

    fn child(&mut self, name: &TreePath, child: Child, parent: &Verdict) -> Result<(), Error> {
        let verdict = match self.ignore {
            Some(ignore) => ignore.check(&String::from_utf8_lossy(name.as_bytes()), parent),
            None => Verdict::default(),
        };
        if file_type(&child.meta) == FileType::Directory {
            return self.subfolder(name, &child.meta, &verdict);
        }
        if verdict.is_ignored() {
            return Ok(());
        }
        let Child { meta, target, .. } = child;
        if let Some(kind) = self.kind(name, &meta, target) {
            self.found.entries.push(entry(name.clone(), kind, &meta));
        }
        Ok(())
    }

    /// An ignored folder is walked only where a later `!` rule could bring a part of it
    /// back, and is there itself only if one did.
    fn subfolder(&mut self, name: &TreePath, meta: &Stat, verdict: &Verdict) -> Result<(), Error> {
        if self.ignore.is_some_and(|ignore| {
            ignore.can_prune(&String::from_utf8_lossy(name.as_bytes()), verdict)
        }) {
            return Ok(());
        }
        let before = self.found.entries.len();
        self.found
            .entries
            .push(entry(name.clone(), Kind::Dir, meta));
        self.folder(name, verdict)?;
        if verdict.is_ignored() && self.found.entries.len() == before + 1 {
            self.found.entries.pop();
        }
        Ok(())
    }

    fn kind(
        &mut self,
        name: &TreePath,
        meta: &Stat,
        target: Option<Vec<u8>>,
    ) -> Option<Kind<Content>> {
        if let Some(target) = target {
            return Some(Kind::Symlink { target });
        }
        if file_type(meta) != FileType::RegularFile {
            return special(meta);
        }
        if meta.st_nlink > 1 {
            let first = self
                .first_names
                .entry((meta.st_dev, meta.st_ino))
                .or_insert_with(|| name.clone());
            if first != name {
                let target = first.clone();
                return Some(Kind::Hardlink { target });
            }
        }
        self.found.stamps.push((name.clone(), Stamp::of(meta)));
        Some(Kind::File(Content {
            size: size(meta),
            digest: unknown(),
        }))
    }
}

/// Gives the number of bytes, which is never negative.
pub(super) fn size(meta: &Stat) -> u64 {
    u64::try_from(meta.st_size).unwrap_or(0)
}

fn file_type(meta: &Stat) -> FileType {
    FileType::from_raw_mode(meta.st_mode)
}

/// Stands where a digest is not yet computed.
fn unknown() -> Digest {
    Digest::from_sha256([0; 32])
}

/// Fifos and devices are kept; a socket means nothing in an image.
fn special(meta: &Stat) -> Option<Kind<Content>> {
    let (major, minor) = (
        rustix::fs::major(meta.st_rdev),
        rustix::fs::minor(meta.st_rdev),
    );
    match file_type(meta) {
        FileType::Fifo => Some(Kind::Fifo),
        FileType::CharacterDevice => Some(Kind::Char { major, minor }),
        FileType::BlockDevice => Some(Kind::Block { major, minor }),
        _ => None,
    }
}

fn entry(path: TreePath, kind: Kind<Content>, meta: &Stat) -> Entry {
    Entry {
        path,
        kind,
        mode: meta.st_mode & 0o7777,
        uid: 0,
        gid: 0,
        mtime: meta.st_mtime,
        xattrs: Vec::new(),
        implicit: false,
    }
}
