//! The upper directory of an overlay file system becomes a layer.
//!
//! The kernel has written down what a command changed: copies of what it touched, a
//! device 0:0 for what it removed, an attribute where it emptied a directory (kernel
//! documentation, overlayfs). The walk goes by descriptors and in the order of the
//! layer. An emptied directory becomes one whiteout per lower child, as BuildKit
//! writes it; of attributes only `security.capability` is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, fstat, major, minor, openat,
    readlinkat, statat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::beneath::{Tree, name_of};
use super::error::At;
use super::sparse_file::SparseFile;
use super::unpack::{load_view, store_toc};
use super::whiteout::{Notes, OPAQUE};
use super::{Error, RootView, capability};
use crate::causes::one_line;
use crate::executor::Identity;
use crate::layer::{
    self, Compression, DiffId, EntryMeta, Finished, Kind, LayerWriter, TreePath, Xattr,
};
use crate::registry::Digest;

/// What the walk must know of the command that has run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose ids are on the disk. With one id only, what a lower layer has at the same
    /// path says who owns it.
    pub identity: Identity,
    /// Paths that do not belong to the layer, with everything below: mount points.
    pub exclude: BTreeSet<TreePath>,
    /// What the disk could not hold and was recorded while the command ran.
    pub recorded: BTreeMap<TreePath, Recorded>,
}

/// What a path is beyond what the disk says; `None` leaves that as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// User and group.
    #[serde(default)]
    pub owner: Option<(u32, u32)>,
    /// Twelve bits.
    #[serde(default)]
    pub mode: Option<u32>,
    /// A device that stands on the disk as an empty file.
    #[serde(default)]
    pub device: Option<Device>,
    /// Value of `security.capability`.
    #[serde(default)]
    pub capability: Option<Vec<u8>>,
}

/// A device that could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
}

impl Options {
    /// Takes everything as it is on the disk.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            exclude: BTreeSet::new(),
            recorded: BTreeMap::new(),
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
        notes: Notes::of(&options.identity),
        lowers,
        options,
        links: HashMap::new(),
        layer,
    };
    walk.run()
}

struct Walk<'a, W> {
    tree: Tree,
    notes: Notes,
    lowers: &'a RootView,
    options: &'a Options,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), TreePath>,
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
                Some((path, Change::Removed)) => self.layer.whiteout(&path)?,
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
        let opaque = inside_opaque || is_opaque(dir, self.notes, path)?;
        let mut children = BTreeMap::new();
        for name in names {
            let child = path.join(&name).map_err(layer::Error::from)?;
            if !self.options.exclude.contains(&child) {
                let stat = statat(dir, name_of(&child), AtFlags::SYMLINK_NOFOLLOW)
                    .at("look at", &child)?;
                children.insert(child, stat);
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
        upper: BTreeMap<TreePath, Stat>,
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
            if !is_whiteout(&stat) {
                changes.insert(child, Change::There(stat));
            } else if self.lowers.lookup(&child).is_some() {
                // The kernel also hides what only the builder had put there.
                changes.insert(child, Change::Removed);
            }
        }
        changes.into_iter().collect()
    }

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
        let meta = self.meta(path, stat, kind, Vec::new());
        Ok(self.layer.append(&meta, None)?)
    }

    fn add_file(&mut self, path: &TreePath, stat: &Stat) -> Result<(), Error> {
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                let kind = Kind::Hardlink {
                    target: first.clone(),
                };
                let meta = self.meta(first, stat, kind, Vec::new());
                let meta = EntryMeta {
                    path: path.clone(),
                    ..meta
                };
                return Ok(self.layer.append(&meta, None)?);
            }
            if self.device(path).is_none() {
                self.links.insert(inode, path.clone());
            }
        }
        if let Some(kind) = self.device(path) {
            let meta = self.meta(path, stat, kind, Vec::new());
            return Ok(self.layer.append(&meta, None)?);
        }
        let (file, stat) = self.open_file(path)?;
        let xattrs = self.capabilities(&file, path)?;
        let size = stat.st_size as u64;
        let meta = self.meta(path, &stat, Kind::File(size), xattrs);
        let has_holes = (stat.st_blocks as u64).saturating_mul(512) < size;
        if has_holes {
            let content: &mut dyn Read = &mut SparseFile::new(file, size);
            return Ok(self.layer.append(&meta, Some(content))?);
        }
        Ok(self.layer.append(&meta, Some(&mut &file))?)
    }

    fn device(&self, path: &TreePath) -> Option<Kind<u64>> {
        Some(match self.options.recorded.get(path)?.device? {
            Device::Char(major, minor) => Kind::Char { major, minor },
            Device::Block(major, minor) => Kind::Block { major, minor },
        })
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

    fn capabilities(&self, file: &File, path: &TreePath) -> Result<Vec<Xattr>, Error> {
        let mut kept = Vec::new();
        for name in attribute_names(file, path)? {
            refuse_reference(self.notes.strip(&name), path)?;
            if name == capability::NAME.as_bytes() {
                let value = attribute(file, capability::NAME, path)?;
                kept.push((name, capability::portable(&value)));
            }
        }
        Ok(kept)
    }

    fn meta(
        &self,
        path: &TreePath,
        stat: &Stat,
        kind: Kind<u64>,
        mut xattrs: Vec<Xattr>,
    ) -> EntryMeta {
        let recorded = self.options.recorded.get(path);
        let (uid, gid) = recorded
            .and_then(|recorded| recorded.owner)
            .unwrap_or_else(|| self.owner(path, stat));
        if let Some(value) = recorded.and_then(|recorded| recorded.capability.clone()) {
            xattrs = vec![(capability::NAME.into(), capability::portable(&value))];
        }
        EntryMeta {
            path: path.clone(),
            kind,
            mode: recorded
                .and_then(|recorded| recorded.mode)
                .unwrap_or(stat.st_mode & 0o7777),
            uid,
            gid,
            mtime: stat.st_mtime,
            xattrs,
        }
    }

    /// With one id everything on the disk is root's, but what was copied up from a
    /// lower layer still belongs to whom it belonged there.
    fn owner(&self, path: &TreePath, stat: &Stat) -> (u32, u32) {
        if self.options.identity != Identity::Single {
            return (stat.st_uid, stat.st_gid);
        }
        let lower = self.lowers.lookup(path);
        lower.map_or((0, 0), |found| (found.entry.uid, found.entry.gid))
    }
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(dir: impl AsFd, notes: Notes, path: &TreePath) -> Result<bool, Error> {
    let mut opaque = false;
    for name in attribute_names(&dir, path)? {
        let note = notes.strip(&name);
        refuse_reference(note, path)?;
        if note == Some(b"opaque") {
            opaque = attribute(&dir, notes.opaque(), path)? == OPAQUE;
        }
    }
    Ok(opaque)
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

/// Room for the names or the value that nearly every file has.
const USUAL_SIZE: usize = 256;

/// The kernel's limit for one value and for all names.
const MAX_SIZE: usize = 64 << 10;

fn attribute_names(fd: impl AsFd, path: &TreePath) -> Result<Vec<Vec<u8>>, Error> {
    let names = match read_growing(|buffer| flistxattr(&fd, buffer)) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        names => names.at("list the attributes of", path)?,
    };
    let names = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

fn attribute(fd: impl AsFd, name: &str, path: &TreePath) -> Result<Vec<u8>, Error> {
    read_growing(|buffer| fgetxattr(&fd, name, buffer)).at("read an attribute of", path)
}

fn read_growing(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; USUAL_SIZE];
    let size = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(MAX_SIZE, 0);
            read(&mut buffer)
        }
        read => read,
    }?;
    buffer.truncate(size);
    Ok(buffer)
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
    /// Paths that do not belong to the layer.
    #[serde(default)]
    pub exclude: Vec<TreePath>,
    /// What was recorded while the command ran.
    #[serde(default)]
    pub recorded: Vec<(TreePath, Recorded)>,
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
            exclude: self.exclude.into_iter().collect(),
            recorded: self.recorded.into_iter().collect(),
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
