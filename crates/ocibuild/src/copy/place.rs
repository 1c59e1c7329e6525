//! Where copied things come to stand: sources laid over the root file system of a stage.

use std::collections::{BTreeMap, HashMap};

use super::select::clean;
use super::{
    Archive, Bytes, Destination, Error, InlineFile, Inode, Owner, Placed, PlacedFrom, Placement,
    Selected,
};
use crate::layer::{Content, Entry, Kind, TreePath};
use crate::registry::Digest;
use crate::snapshot::{Found, RootView};

/// Of a directory: what is made in it gets its group.
const SET_GROUP_ID: u32 = 0o2000;

/// A source with where it was found.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The index that [`Bytes::Source`] gets.
    pub files: usize,
    /// What is there.
    pub view: &'a RootView,
    /// What of it is meant.
    pub selected: &'a Selected,
    /// Its members, where it is an archive to be extracted.
    pub archive: Option<&'a Archive>,
}

/// Lays sources and then inline files over `base`. Bytes that are taken from the base
/// get the index `base_files`.
pub fn place(
    sources: &[Source<'_>],
    inline: &[InlineFile],
    base: &RootView,
    base_files: usize,
    dest: &Destination,
) -> Result<Placement, Error> {
    let mut placing = Placing::new(base, dest);
    let target = placing.target()?;
    let into = is_into(&dest.path);
    for source in sources {
        placing.group += 1;
        match source.archive {
            Some(archive) => placing.archive(archive, base_files, &target)?,
            None => placing.source(source, &target, into)?,
        }
    }
    for (index, file) in inline.iter().enumerate() {
        placing.inline(index, file, &target, into)?;
    }
    Ok(placing.finish())
}

/// Makes what is missing of a directory, for WORKDIR; nothing where it is there. Without
/// an owner it is made as root makes it.
pub fn place_folder(base: &RootView, path: &str, owner: Option<Owner>) -> Result<Placement, Error> {
    let dest = Destination {
        path: path.to_owned(),
        owner,
        mode: None,
    };
    let mut placing = Placing::new(base, &dest);
    let target = placing.target()?;
    placing.make_folders(&target)?;
    Ok(placing.finish())
}

fn is_into(path: &str) -> bool {
    path.ends_with('/') || path == "." || path.ends_with("/.")
}

pub(super) struct Placing<'a> {
    pub(super) base: &'a RootView,
    pub(super) dest: &'a Destination,
    pub(super) placed: Placement,
    /// Which source is being placed: hard links live within one.
    pub(super) group: usize,
}

impl<'a> Placing<'a> {
    fn new(base: &'a RootView, dest: &'a Destination) -> Self {
        Self {
            base,
            dest,
            placed: Placement::new(),
            group: 0,
        }
    }

    /// Gives the destination with every link on the way followed, the last one too.
    fn target(&self) -> Result<TreePath, Error> {
        let resolved = self.base.resolve(clean(&self.dest.path), true);
        let links = |_| Error::Links(self.dest.path.clone());
        Ok(resolved.map_err(links)?.path)
    }

    fn source(&mut self, source: &Source<'_>, target: &TreePath, into: bool) -> Result<(), Error> {
        let root = &source.selected.root;
        let file = match source.view.lookup(root) {
            Some(found) if !found.entry.kind.is_dir() => found,
            _ => return self.folder(source, target),
        };
        let at = self.file_target(target, &source.selected.name, into)?;
        self.put(source, file, at, &mut HashMap::new())
    }

    /// A directory gives its contents, not itself.
    fn folder(&mut self, source: &Source<'_>, target: &TreePath) -> Result<(), Error> {
        self.make_folders(target)?;
        let mut inodes = HashMap::new();
        for found in source.selected.entries(source.view) {
            let at = found.entry.path.moved(&source.selected.root, target);
            self.put(source, found, at, &mut inodes)?;
        }
        Ok(())
    }

    fn inline(
        &mut self,
        index: usize,
        file: &InlineFile,
        target: &TreePath,
        into: bool,
    ) -> Result<(), Error> {
        let at = self.file_target(target, file.name.as_bytes(), into)?;
        let entry = Entry {
            path: at.clone(),
            kind: Kind::File(Content {
                size: file.content.len() as u64,
                digest: Digest::sha256(&file.content),
            }),
            mode: 0o644,
            ..Entry::dir(at.clone())
        };
        self.insert(at, entry, Bytes::Inline(index), None)
    }

    /// A file goes into the destination where that is, or is meant as, a directory.
    fn file_target(
        &mut self,
        target: &TreePath,
        name: &[u8],
        into: bool,
    ) -> Result<TreePath, Error> {
        let at = if into || self.is_folder(target) {
            target
                .join(name)
                .map_err(|_| Error::IsADirectory(target.to_string()))?
        } else {
            target.clone()
        };
        if let Some(parent) = at.parent() {
            self.make_folders(&parent)?;
        }
        Ok(at)
    }

    /// Names that were one file in the source stay one file.
    fn put(
        &mut self,
        source: &Source<'_>,
        found: Found<'_>,
        at: TreePath,
        inodes: &mut HashMap<(usize, TreePath), usize>,
    ) -> Result<(), Error> {
        let mut entry = found.entry.clone();
        let Some(content) = source.view.content(found) else {
            return self.insert(at, entry, Bytes::None, None);
        };
        let next = inodes.len();
        let number = *inodes.entry((content.layer, content.path)).or_insert(next);
        let inode = Inode {
            group: self.group,
            number,
        };
        entry.kind = Kind::File(content.content);
        let bytes = Bytes::Source(source.files, found.entry.path.clone());
        self.insert(at, entry, bytes, Some(inode))
    }

    fn insert(
        &mut self,
        at: TreePath,
        mut entry: Entry,
        bytes: Bytes,
        inode: Option<Inode>,
    ) -> Result<(), Error> {
        let is_folder = matches!(entry.kind, Kind::Dir);
        match self.kind_at(&at) {
            Some(Kind::Dir) if !is_folder => return Err(Error::IsADirectory(at.to_string())),
            Some(Kind::Dir) | None => {}
            Some(_) if is_folder => return Err(Error::NotADirectory(at.to_string())),
            Some(_) => {}
        }
        entry.path = at.clone();
        self.own(&mut entry);
        if let (Some(mode), false) = (&self.dest.mode, matches!(entry.kind, Kind::Symlink { .. })) {
            entry.mode = mode.apply(entry.mode, is_folder);
        }
        let placed = Placed {
            entry,
            origin: match bytes {
                Bytes::Inline(_) => PlacedFrom::Dockerfile,
                _ => PlacedFrom::Source,
            },
            bytes,
            inode,
        };
        self.placed.insert(at, placed);
        Ok(())
    }

    pub(super) fn own(&self, entry: &mut Entry) {
        if let Some(owner) = self.dest.owner {
            entry.uid = owner.uid;
            entry.gid = owner.gid;
        }
    }

    /// Makes what is missing of a path, with the owner and the permission bits of the octal
    /// mode that were asked for; changes of a mode mean nothing where there was none before.
    fn make_folders(&mut self, path: &TreePath) -> Result<(), Error> {
        let mode = match self.dest.mode {
            Some(super::Mode::Octal(mode)) => mode & 0o777,
            _ => 0o755,
        };
        self.make_folders_with(path, mode)
    }

    pub(super) fn make_folders_with(&mut self, path: &TreePath, mode: u32) -> Result<(), Error> {
        self.make_missing(path, mode, false)
    }

    /// Makes what is missing above a member of an archive: it is root's whatever `--chown`
    /// says, and of what the kernel hands on it keeps the group and not the bit.
    pub(super) fn make_implied(&mut self, path: &TreePath) -> Result<(), Error> {
        self.make_missing(path, 0o755, true)
    }

    fn make_missing(&mut self, path: &TreePath, mode: u32, implied: bool) -> Result<(), Error> {
        for folder in path.ancestors().chain([path.clone()]) {
            match self.kind_at(&folder) {
                Some(Kind::Dir) => continue,
                Some(_) => return Err(Error::NotADirectory(folder.to_string())),
                None => {}
            }
            let mut entry = Entry::dir(folder.clone());
            entry.mode = mode;
            self.inherit_group(&mut entry);
            if implied {
                entry.mode = mode;
            } else {
                self.own(&mut entry);
            }
            let placed = Placed {
                entry,
                origin: PlacedFrom::Made,
                bytes: Bytes::None,
                inode: None,
            };
            self.placed.insert(folder, placed);
        }
        Ok(())
    }

    /// Does what mkdir(2) does below a directory whose set-group-ID bit is set: the new one
    /// takes its group and the bit. Debian's `/usr/local/lib/python3*` are such directories.
    fn inherit_group(&self, folder: &mut Entry) {
        let above = folder.path.parent().and_then(|above| self.entry_at(&above));
        if let Some(above) = above.filter(|above| above.mode & SET_GROUP_ID != 0) {
            folder.mode |= SET_GROUP_ID;
            folder.gid = above.gid;
        }
    }

    fn entry_at(&self, path: &TreePath) -> Option<&Entry> {
        match self.placed.get(path) {
            Some(placed) => Some(&placed.entry),
            None => self.base.lookup(path).map(|found| found.entry),
        }
    }

    fn finish(mut self) -> Placement {
        self.link_names();
        self.add_parents();
        self.placed
    }

    /// Of the names of one file the first holds the bytes and the others are links to it,
    /// in the order in which they come to stand in the tar.
    fn link_names(&mut self) {
        let mut first: HashMap<Inode, TreePath> = HashMap::new();
        for (path, placed) in &mut self.placed {
            let Some(inode) = placed.inode else {
                continue;
            };
            match first.get(&inode) {
                None => drop(first.insert(inode, path.clone())),
                Some(target) => {
                    placed.entry.kind = Kind::Hardlink {
                        target: target.clone(),
                    };
                    placed.bytes = Bytes::None;
                }
            }
        }
    }

    /// Adds the existing directories above everything that was placed.
    fn add_parents(&mut self) {
        let mut parents = BTreeMap::new();
        for path in self.placed.keys() {
            let mut above = path.parent();
            while let Some(folder) = above.filter(|folder| !folder.is_root()) {
                if self.placed.contains_key(&folder) || parents.contains_key(&folder) {
                    break;
                }
                if let Some(found) = self.base.lookup(&folder) {
                    let placed = Placed {
                        entry: found.entry.clone(),
                        origin: PlacedFrom::Base,
                        bytes: Bytes::None,
                        inode: None,
                    };
                    parents.insert(folder.clone(), placed);
                }
                above = folder.parent();
            }
        }
        self.placed.append(&mut parents);
    }

    fn is_folder(&self, path: &TreePath) -> bool {
        matches!(self.kind_at(path), Some(Kind::Dir))
    }

    pub(super) fn kind_at(&self, path: &TreePath) -> Option<Kind<Content>> {
        if path.is_root() {
            return Some(Kind::Dir);
        }
        self.entry_at(path).map(|entry| entry.kind.clone())
    }
}
