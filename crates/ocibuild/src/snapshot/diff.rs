//! The upper directory of an overlay file system becomes a layer.
//!
//! The kernel has written down what a command changed: copies of what it touched, a
//! device 0:0 for what it removed, an attribute where it emptied a directory (kernel
//! documentation, overlayfs). The walk goes by descriptors and in the order of the
//! layer. An emptied directory becomes one whiteout per lower child, as BuildKit
//! writes it; a directory that is as it was below, whatever its time, is there only for what
//! is in it. Of attributes only `security.capability` is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, major, minor, openat, readlinkat, statat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::beneath::{Tree, name_of};
use super::error::At;
use super::sparse_file::SparseFile;
use super::unchanged::is_unchanged;
use super::unpack::{load_view, store_toc};
use super::whiteout::{Opacity, is_hidden};
use super::{Error, RootView, attributes, capability};
use crate::causes::one_line;
use crate::executor::{Identity, Notes};
use crate::layer::{
    self, Compression, DiffId, EntryMeta, Finished, Kind, LayerWriter, TreePath, Xattr,
};
use crate::ownership::{self, Device, Record};
use crate::registry::Digest;

/// What the walk must know of the command that has run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose ids are on the disk. With one id only, what a lower layer has at the same
    /// path says who owns it.
    pub identity: Identity,
    /// Where overlayfs has left its notes.
    pub notes: Notes,
    /// Paths that do not belong to the layer, with everything below: mount points.
    pub exclude: BTreeSet<TreePath>,
    /// The latest modification time that an entry may have: tables of lower layers have
    /// none that is later, though their files do.
    pub clamp_mtime: Option<i64>,
}

impl Options {
    /// Takes everything as it is on the disk.
    pub fn new(identity: Identity) -> Self {
        Self {
            notes: Notes::of(&identity),
            identity,
            exclude: BTreeSet::new(),
            clamp_mtime: None,
        }
    }
}

/// Adds the changes in `upper`, made over `lowers`, to a layer.
pub fn diff<W: Write + Send + 'static>(
    upper: &Path,
    lowers: &RootView,
    options: &Options,
    layer: &mut LayerWriter<W>,
) -> Result<(), Error> {
    let walk = Walk {
        tree: Tree::open(upper).at_host("open", upper)?,
        lowers,
        options,
        links: HashMap::new(),
        unchanged: Vec::new(),
        layer,
    };
    walk.run()
}

struct Walk<'a, W> {
    tree: Tree,
    lowers: &'a RootView,
    options: &'a Options,
    /// The first name of each file that has several, and what the file is.
    links: HashMap<(u64, u64), (TreePath, Record)>,
    /// Directories above that are as they were, until something is found in them.
    unchanged: Vec<EntryMeta>,
    layer: &'a mut LayerWriter<W>,
}

/// A directory whose children are being added.
struct Level {
    children: std::vec::IntoIter<(TreePath, Change)>,
    opaque: bool,
}

/// What has become of a path.
enum Change {
    Removed,
    There(Stat),
}

impl<W: Write + Send + 'static> Walk<'_, W> {
    /// The levels are a list, not calls, because a command can make a tree of any depth.
    fn run(mut self) -> Result<(), Error> {
        let mut levels = vec![self.enter(&TreePath::root(), false)?];
        while let Some(level) = levels.last_mut() {
            let opaque = level.opaque;
            match level.children.next() {
                None => drop(levels.pop()),
                Some((path, Change::Removed)) => {
                    self.add_above(&path)?;
                    self.layer.whiteout(&path)?;
                }
                Some((path, Change::There(stat))) => {
                    self.add(&path, &stat)?;
                    if file_type(&stat) == FileType::Directory {
                        levels.push(self.enter(&path, opaque)?);
                    }
                }
            }
        }
        Ok(())
    }

    /// Lists a directory. What is below an opaque directory hides lower content too,
    /// although the kernel marks only the directory itself.
    fn enter(&mut self, path: &TreePath, inside_opaque: bool) -> Result<Level, Error> {
        let dir = self.tree.dir(path).at("open", path)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).at("list", path)? {
            let name = entry.at("list", path)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        let notes = self.options.notes;
        let opacity = opacity(dir, notes, path)?;
        let opaque = inside_opaque || opacity == Opacity::Opaque;
        let mut children = BTreeMap::new();
        for name in names {
            let child = path.join(&name).map_err(layer::Error::from)?;
            if !self.options.exclude.contains(&child) {
                let stat = statat(dir, name_of(&child), AtFlags::SYMLINK_NOFOLLOW)
                    .at("look at", &child)?;
                let is_hidden = is_hidden((dir, opacity), &name, &stat, notes);
                let is_there = !is_hidden.at("look at", &child)?;
                children.insert(child, is_there.then_some(stat));
            }
        }
        let children = self.changes(path, children, opaque);
        Ok(Level {
            children: children.into_iter(),
            opaque,
        })
    }

    fn changes(
        &self,
        path: &TreePath,
        upper: BTreeMap<TreePath, Option<Stat>>,
        opaque: bool,
    ) -> Vec<(TreePath, Change)> {
        let mut changes = BTreeMap::new();
        if opaque {
            for lower in self.lowers.children(path) {
                let child = &lower.entry.path;
                if !upper.contains_key(child) && !self.options.exclude.contains(child) {
                    changes.insert(child.clone(), Change::Removed);
                }
            }
        }
        for (child, stat) in upper {
            if let Some(stat) = stat {
                changes.insert(child, Change::There(stat));
            } else if self.lowers.lookup(&child).is_some() {
                // The kernel also hides what only the builder had put there.
                changes.insert(child, Change::Removed);
            }
        }
        changes.into_iter().collect()
    }

    /// Adds what is at a path, unless the lower layers have the same there. So it is below an
    /// opaque directory too: the layer hides only what is gone, name by name.
    fn add(&mut self, path: &TreePath, stat: &Stat) -> Result<(), Error> {
        let kind = match file_type(stat) {
            FileType::RegularFile => return self.add_file(path, stat),
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink {
                target: self.read_link(path)?,
            },
            FileType::CharacterDevice => Kind::Char {
                major: major(stat.st_rdev),
                minor: minor(stat.st_rdev),
            },
            FileType::BlockDevice => Kind::Block {
                major: major(stat.st_rdev),
                minor: minor(stat.st_rdev),
            },
            FileType::Fifo => Kind::Fifo,
            // A tar has no sockets; nobody would listen at one either.
            _ => return Ok(()),
        };
        let record = self.record(path, stat)?;
        let meta = self.meta(path, stat, &record, kind);
        if is_unchanged(self.lowers, &meta, None).at("compare", path)? {
            if meta.kind == Kind::Dir {
                self.unchanged.push(meta);
            }
            return Ok(());
        }
        self.append(&meta, None)
    }

    fn append(&mut self, meta: &EntryMeta, content: Option<&mut dyn Read>) -> Result<(), Error> {
        self.add_above(&meta.path)?;
        Ok(self.layer.append(meta, content)?)
    }

    /// Adds the directories above a path that wait for something in them. The walk does
    /// not come back to the others.
    fn add_above(&mut self, path: &TreePath) -> Result<(), Error> {
        for dir in std::mem::take(&mut self.unchanged) {
            if path.starts_with(&dir.path) {
                self.layer.append(&dir, None)?;
            }
        }
        Ok(())
    }

    /// Of the names of one file the first holds the bytes, whichever of them is new.
    fn add_file(&mut self, path: &TreePath, stat: &Stat) -> Result<(), Error> {
        let inode = (stat.st_dev, stat.st_ino);
        let first = match stat.st_nlink {
            1 => None,
            _ => self.links.get(&inode).cloned(),
        };
        let is_below = self.lowers.lookup(path).is_some();
        if let (Some((target, record)), false) = (&first, is_below) {
            let target = target.clone();
            let meta = self.meta(path, stat, record, Kind::Hardlink { target });
            return self.append(&meta, None);
        }
        let (file, stat) = self.open_file(path)?;
        let names = attributes::names(&file, path)?;
        let record = self.file_record(&file, &names, path, &stat)?;
        if let Some(device) = record.device {
            let meta = self.meta(path, &stat, &record, device_kind(device));
            return self.append(&meta, None);
        }
        let size = stat.st_size as u64;
        let meta = EntryMeta {
            xattrs: self.capabilities(&file, &names, path)?,
            ..self.meta(path, &stat, &record, Kind::File(size))
        };
        if is_below && is_unchanged(self.lowers, &meta, Some(&file)).at("compare", path)? {
            return Ok(());
        }
        if let Some((target, record)) = first {
            let meta = self.meta(path, &stat, &record, Kind::Hardlink { target });
            return self.append(&meta, None);
        }
        if stat.st_nlink > 1 {
            self.links.insert(inode, (path.clone(), record));
        }
        let has_holes = (stat.st_blocks as u64).saturating_mul(512) < size;
        if has_holes {
            let content: &mut dyn Read = &mut SparseFile::new(file, size);
            return self.append(&meta, Some(content));
        }
        self.append(&meta, Some(&mut &file))
    }

    fn open_file(&mut self, path: &TreePath) -> Result<(File, Stat), Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let dir = self.tree.parent(path).at("open the directory of", path)?;
        let fd: OwnedFd = openat(dir, name_of(path), flags, Mode::empty()).at("open", path)?;
        let stat = fstat(&fd).at("look at", path)?;
        match file_type(&stat) {
            FileType::RegularFile => Ok((File::from(fd), stat)),
            // It was a file a moment ago.
            _ => Err(Errno::STALE).at("open", path),
        }
    }

    fn read_link(&mut self, path: &TreePath) -> Result<Vec<u8>, Error> {
        let dir = self.tree.parent(path).at("open the directory of", path)?;
        let target = readlinkat(dir, name_of(path), Vec::new()).at("read the link", path)?;
        Ok(target.into_bytes())
    }

    fn capabilities(
        &self,
        file: &File,
        names: &[Vec<u8>],
        path: &TreePath,
    ) -> Result<Vec<Xattr>, Error> {
        for name in names {
            refuse_reference(self.options.notes.strip(name), path)?;
        }
        let is_recorded = self.options.identity == Identity::Recorded;
        let named = names.iter().filter(|name| {
            let shown = if is_recorded {
                ownership::shown_name(name)
            } else {
                Some(&name[..])
            };
            shown == Some(capability::NAME.as_bytes())
        });
        // What was recorded last is what was meant.
        let Some(name) = named.max_by_key(|name| ownership::is_ours(name)) else {
            return Ok(Vec::new());
        };
        let value = attributes::value(file, name, path)?;
        Ok(vec![(
            capability::NAME.into(),
            capability::portable(&value),
        )])
    }

    /// Gives what something that is not a regular file is meant to be.
    fn record(&mut self, path: &TreePath, stat: &Stat) -> Result<Record, Error> {
        if self.options.identity != Identity::Recorded {
            return Ok(self.disk_record(path, stat));
        }
        let dir = self.tree.parent(path).at("open the directory of", path)?;
        let seen = ownership::look_at(dir, name_of(path)).at("read the owner of", path)?;
        Ok(seen.meant())
    }

    /// Gives what an open regular file is meant to be.
    fn file_record(
        &self,
        file: &File,
        names: &[Vec<u8>],
        path: &TreePath,
        stat: &Stat,
    ) -> Result<Record, Error> {
        if self.options.identity != Identity::Recorded {
            return Ok(self.disk_record(path, stat));
        }
        if !names.iter().any(|name| name == ownership::INODE.as_bytes()) {
            return Ok(Record::plain(stat.st_mode));
        }
        let seen = ownership::look(file).at("read the owner of", path)?;
        Ok(seen.meant())
    }

    fn meta(&self, path: &TreePath, stat: &Stat, record: &Record, kind: Kind<u64>) -> EntryMeta {
        let latest = self.options.clamp_mtime.unwrap_or(i64::MAX);
        EntryMeta {
            path: path.clone(),
            kind,
            mode: record.mode,
            uid: record.uid,
            gid: record.gid,
            mtime: stat.st_mtime.min(latest),
            xattrs: Vec::new(),
        }
    }

    /// Owner and mode as the disk has them. With one id everything there is root's, but
    /// what was copied up from a lower layer still belongs to whom it belonged there.
    fn disk_record(&self, path: &TreePath, stat: &Stat) -> Record {
        let (uid, gid) = match self.options.identity {
            Identity::Single => {
                let lower = self.lowers.lookup(path);
                lower.map_or((0, 0), |found| (found.entry.uid, found.entry.gid))
            }
            _ => (stat.st_uid, stat.st_gid),
        };
        Record {
            uid,
            gid,
            ..Record::plain(stat.st_mode)
        }
    }
}

fn device_kind(device: Device) -> Kind<u64> {
    match device {
        Device::Char(major, minor) => Kind::Char { major, minor },
        Device::Block(major, minor) => Kind::Block { major, minor },
    }
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn opacity(dir: impl AsFd, notes: Notes, path: &TreePath) -> Result<Opacity, Error> {
    let mut opacity = Opacity::Clear;
    for name in attributes::names(&dir, path)? {
        let note = notes.strip(&name);
        refuse_reference(note, path)?;
        if note == Some(b"opaque") {
            opacity = Opacity::of_value(&attributes::value(&dir, &name, path)?);
        }
    }
    Ok(opacity)
}

/// With these features the content is somewhere in a lower layer, not in the upper directory.
fn refuse_reference(note: Option<&[u8]>, path: &TreePath) -> Result<(), Error> {
    let feature = match note {
        Some(b"redirect") => "redirect_dir",
        Some(b"metacopy") => "metacopy",
        _ => return Ok(()),
    };
    Err(Error::OverlayFeature {
        path: path.clone(),
        feature,
    })
}

/// What [`job`] is asked to do. Tables of lower layers are files that
/// [`crate::layer::Toc::to_bytes`] gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The upper directory.
    pub upper: PathBuf,
    /// Tables of the layers below, lowest first.
    #[serde(default)]
    pub lowers: Vec<PathBuf>,
    /// Whose ids are on the disk.
    pub identity: Identity,
    /// Where overlayfs has left its notes.
    pub notes: Notes,
    /// Paths that do not belong to the layer.
    #[serde(default)]
    pub exclude: Vec<TreePath>,
    /// Compression of the blob.
    #[serde(default)]
    pub compression: Compression,
    /// Its level.
    #[serde(default)]
    pub level: Option<i32>,
    /// Threads that compress.
    #[serde(default)]
    pub threads: usize,
    /// The latest modification time that an entry may have.
    #[serde(default)]
    pub clamp_mtime: Option<i64>,
    /// Where the blob is written.
    pub blob: PathBuf,
    /// Where the table is written.
    pub toc: PathBuf,
}

/// What [`job`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size: u64,
    /// Size of the uncompressed tar.
    pub uncompressed_size: u64,
    /// Media type of the blob.
    pub media_type: String,
    /// Whether the layer changes nothing.
    pub empty: bool,
}

/// Does what a [`Request`] in JSON says, for a process of its own inside a user
/// namespace; gives a [`Response`] in JSON, or the error in one line.
pub fn job(request: &[u8]) -> Result<Vec<u8>, String> {
    let request: Request = serde_json::from_slice(request).map_err(|error| one_line(&error))?;
    let finished = request.run().map_err(|error| one_line(&error))?;
    let response = Response {
        diff_id: finished.diff_id,
        digest: finished.digest,
        size: finished.size,
        uncompressed_size: finished.uncompressed_size,
        media_type: finished.media_type.to_owned(),
        empty: finished.toc.is_empty(),
    };
    serde_json::to_vec(&response).map_err(|error| one_line(&error))
}

impl Request {
    fn run(self) -> Result<Finished, Error> {
        let lowers = load_view(&self.lowers)?;
        let options = Options {
            identity: self.identity,
            notes: self.notes,
            exclude: self.exclude.into_iter().collect(),
            clamp_mtime: self.clamp_mtime,
        };
        let format = layer::Options {
            compression: self.compression,
            level: self.level,
            threads: self.threads,
            clamp_mtime: self.clamp_mtime,
        };
        let blob = File::create(&self.blob).at_host("create", &self.blob)?;
        let mut layer = LayerWriter::new(format, blob)?;
        diff(&self.upper, &lowers, &options, &mut layer)?;
        let (finished, _) = layer.finish()?;
        store_toc(&finished.toc, &self.toc)?;
        Ok(finished)
    }
}
