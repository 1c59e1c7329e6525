//! A layer becomes a directory that an overlay file system can use as a lower one.
//!
//! The blob is read once; a tree grows in a directory of its own and is renamed when it is
//! whole, so nobody ever sees half of it. Its files come without a look at other layers, so
//! that those of an image can be unpacked side by side; only its directories need those below. Names are judged
//! by `layer::read`, and every directory is opened from the root of the tree
//! without following links, so that no archive writes outside.
//!
//! Order: content, owner, mode, attributes, time, because a change of owner clears
//! set-id bits and capabilities; directories last and from the inside out.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr,
    futimens, linkat, makedev, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

mod attributes;
mod job;

use self::attributes::{Attributes, is_for_disk, times};
pub use self::job::{Completion, Request, Response, complete_job, job};
pub(super) use self::job::{load_view, store_toc};
use super::beneath::{Tree, name_of};
use super::error::At;
use super::whiteout::{self, Opacity};
use super::{Error, RootView};
use crate::executor::{Identity, Notes};
use crate::layer::{
    DiffId, Encoding, Entry, EntryMeta, Kind, Limits, ReadLayer, Toc, TreePath, Visitor, read_layer,
};
use crate::ownership::{self, Device};

const BUFFER: usize = 128 << 10;

/// How a layer is unpacked.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose ids the tree gets.
    pub identity: Identity,
    /// Where overlayfs looks for its notes.
    pub notes: Notes,
    /// How the blob is compressed.
    pub encoding: Encoding,
    /// What the layer may cost.
    pub limits: Limits,
    /// The layer that is expected; another one is refused.
    pub expected: Option<DiffId>,
    /// The layers below: a directory that this layer only implies gets the owner, mode
    /// and time that it has there, because overlayfs shows those of the highest one.
    pub lowers: RootView,
}

impl Options {
    /// Unpacks for one identity, with default limits and nothing expected.
    pub fn new(identity: Identity) -> Self {
        Self {
            notes: Notes::of(&identity),
            identity,
            encoding: Encoding::Detect,
            limits: Limits::default(),
            expected: None,
            lowers: RootView::new(&[]),
        }
    }
}

/// Unpacks a layer into `dest`, which must not be there or be an empty directory.
///
/// With [`Identity::Single`] owners stay those of the process and devices are left out;
/// with [`Identity::Range`] devices are left out. The table has them all the same. With
/// [`Identity::Recorded`] what this process may not set is recorded.
pub fn unpack(blob: impl Read + Send, dest: &Path, options: &Options) -> Result<ReadLayer, Error> {
    let place = dest
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let hidden = tempfile::Builder::new()
        .prefix(".unpack-")
        .tempdir_in(place.unwrap_or(Path::new(".")))
        .at_host("make a directory beside", dest)?;
    let layer = fill(blob, hidden.path(), options)?;
    complete(hidden.path(), &layer.toc, options)?;
    std::fs::rename(hidden.path(), dest).at_host("move the unpacked layer to", dest)?;
    // It is not there any more under the name that would be removed.
    let _ = hidden.keep();
    Ok(layer)
}

/// Does the first part of [`unpack`], for which nothing of the layers below has to be
/// known: what the blob holds appears in `tree`, an empty directory.
pub fn fill(blob: impl Read + Send, tree: &Path, options: &Options) -> Result<ReadLayer, Error> {
    let mut unpacker = Unpacker::new(tree, options)?;
    let layer = read_layer(blob, options.encoding, &options.limits, &mut unpacker)?;
    match options.expected.filter(|wanted| *wanted != layer.diff_id) {
        None => Ok(layer),
        Some(expected) => Err(Error::WrongLayer {
            expected: Box::new(expected),
            found: Box::new(layer.diff_id),
        }),
    }
}

/// Does the rest of [`unpack`]: what the layer removes, and its directories, of which
/// those that it only implies look as they do in the layers below.
pub fn complete(tree: &Path, toc: &Arc<Toc>, options: &Options) -> Result<(), Error> {
    let stack = options.lowers.with(Arc::clone(toc));
    Unpacker::new(tree, options)?.complete(toc, &stack)
}

struct Unpacker<'a> {
    tree: Tree,
    options: &'a Options,
    buffer: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    fn new(tree: &Path, options: &'a Options) -> Result<Self, Error> {
        Ok(Self {
            tree: Tree::open(tree).at_host("open", tree)?,
            options,
            buffer: vec![0; BUFFER],
        })
    }
}

impl Visitor for Unpacker<'_> {
    type Error = Error;

    fn entry(&mut self, meta: &EntryMeta, content: &mut dyn Read) -> Result<(), Error> {
        let path = &meta.path;
        match &meta.kind {
            Kind::Dir => self.make_dir(path),
            Kind::File(_) => self.make_file(meta, content),
            Kind::Symlink { target } => {
                self.make(path, |dir, name| symlinkat(&target[..], dir, name))?;
                self.finish_special(meta, true)
            }
            Kind::Hardlink { target } => self.make_link(path, target),
            Kind::Fifo => self.make_node(meta, FileType::Fifo, (0, 0)),
            Kind::Char { major, minor } => self.make_device(meta, Device::Char(*major, *minor)),
            Kind::Block { major, minor } => self.make_device(meta, Device::Block(*major, *minor)),
        }
    }
}

impl Unpacker<'_> {
    /// Makes something that is not a directory, in place of whatever an earlier entry
    /// of the same layer has made there.
    fn make<T>(
        &mut self,
        path: &TreePath,
        make: impl Fn(BorrowedFd<'_>, &OsStr) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let name = name_of(path);
        let dir = self.parent(path)?;
        match make(dir, name) {
            Err(Errno::EXIST) => {}
            made => return made.at("create", path),
        }
        self.remove(path)?;
        let dir = self.parent(path)?;
        make(dir, name).at("create", path)
    }

    fn remove(&mut self, path: &TreePath) -> Result<(), Error> {
        self.tree.forget();
        let dir = self.parent(path)?;
        let name = name_of(path);
        match unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => unlinkat(dir, name, AtFlags::REMOVEDIR),
            removed => removed,
        }
        .at("replace", path)
    }

    /// Opens the directory that holds `path`; makes those that the layer implies.
    fn parent(&mut self, path: &TreePath) -> Result<BorrowedFd<'_>, Error> {
        let parent = path.parent().unwrap_or_else(TreePath::root);
        if let Err(error) = self.tree.dir(&parent) {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error).at("open", &parent);
            }
            for dir in path.ancestors().skip(1) {
                self.make_dir(&dir)?;
            }
        }
        self.tree.dir(&parent).at("open", &parent)
    }

    /// Makes a directory that only we can enter until its layer is whole.
    fn make_dir(&mut self, path: &TreePath) -> Result<(), Error> {
        if path.is_root() {
            return Ok(());
        }
        let make = |dir: BorrowedFd<'_>, name: &OsStr| mkdirat(dir, name, Mode::RWXU);
        match make(self.parent(path)?, name_of(path)) {
            Err(Errno::EXIST) if self.is_dir(path)? => Ok(()),
            Err(Errno::EXIST) => self.make(path, make),
            made => made.at("create", path),
        }
    }

    fn is_dir(&mut self, path: &TreePath) -> Result<bool, Error> {
        let dir = self.parent(path)?;
        let stat = statat(dir, name_of(path), AtFlags::SYMLINK_NOFOLLOW).at("look at", path)?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    fn make_file(&mut self, meta: &EntryMeta, content: &mut dyn Read) -> Result<(), Error> {
        let file = self.make_empty(&meta.path)?;
        self.write_content(&file, meta, content)?;
        self.set_all(&file, &Attributes::of_meta(meta), &meta.path)
    }

    fn make_empty(&mut self, path: &TreePath) -> Result<File, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = self.make(path, |dir, name| {
            openat(dir, name, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
        })?;
        Ok(File::from(fd))
    }

    fn write_content(
        &mut self,
        mut file: &File,
        meta: &EntryMeta,
        content: &mut dyn Read,
    ) -> Result<(), Error> {
        loop {
            let count = match content.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.at("read the content of", &meta.path)?,
            };
            if count == 0 {
                return Ok(());
            }
            file.write_all(&self.buffer[..count])
                .at("write", &meta.path)?;
        }
    }

    fn make_link(&mut self, path: &TreePath, target: &TreePath) -> Result<(), Error> {
        // Two directories are open at once, so one of them is not the remembered one.
        let from = self
            .tree
            .parent(target)
            .and_then(|dir| dir.try_clone_to_owned());
        let from: OwnedFd = from.at("open the directory of", target)?;
        let target = name_of(target);
        self.make(path, |dir, name| {
            linkat(&from, target, dir, name, AtFlags::empty())
        })
    }

    fn make_device(&mut self, meta: &EntryMeta, device: Device) -> Result<(), Error> {
        match self.options.identity {
            Identity::Real => self.make_node(meta, device.file_type(), device.numbers()),
            Identity::Recorded => {
                let file = self.make_empty(&meta.path)?;
                let mut attributes = Attributes::of_meta(meta);
                attributes.record.device = Some(device);
                self.set_all(&file, &attributes, &meta.path)
            }
            // No user namespace may make devices; what an earlier entry made goes all the same.
            Identity::Range { .. } | Identity::Single => self.make_nothing(&meta.path),
        }
    }

    fn make_node(
        &mut self,
        meta: &EntryMeta,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<(), Error> {
        let mode = Mode::RUSR | Mode::WUSR;
        self.make(&meta.path, |dir, name| {
            mknodat(dir, name, kind, mode, makedev(major, minor))
        })?;
        self.finish_special(meta, false)
    }

    fn make_nothing(&mut self, path: &TreePath) -> Result<(), Error> {
        let dir = self.parent(path)?;
        match statat(dir, name_of(path), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => self.remove(path),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).at("look at", path),
        }
    }

    /// Owner, mode and time of what is not opened: links, pipes, devices.
    fn finish_special(&mut self, meta: &EntryMeta, is_link: bool) -> Result<(), Error> {
        let identity = &self.options.identity;
        let path = &meta.path;
        let dir = self.tree.parent(path).at("open the directory of", path)?;
        let name = name_of(path);
        if identity.has_owners() {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .at("set the owner of", path)?;
        }
        if !is_link {
            // What we made a moment ago in a directory of ours is no link.
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())
                .at("set the mode of", path)?;
        }
        let times = times(meta.mtime, identity);
        utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).at("set the time of", path)?;
        if *identity == Identity::Recorded && (meta.uid, meta.gid) != (0, 0) {
            let record = Attributes::of_meta(meta).record;
            ownership::write_at(dir, name, &record).at("record the owner of", path)?;
        }
        Ok(())
    }

    /// Ends the tree: what it removes from lower layers, then its directories.
    fn complete(&mut self, toc: &Toc, stack: &RootView) -> Result<(), Error> {
        for path in toc.whiteouts() {
            // In an opaque directory there is nothing to hide.
            let parent = path.parent().unwrap_or_else(TreePath::root);
            let is_needed = !(toc.is_opaque(&parent) || toc.removes(&parent));
            if is_needed && toc.get(path).is_none() {
                let notes = self.options.notes;
                self.make(path, |dir, name| whiteout::hide(dir, name, notes))?;
            }
        }
        for entry in toc.entries().iter().rev() {
            if entry.kind.is_dir() {
                // What is seen in a directory that is only implied is the one below it.
                let seen = stack.lookup(&entry.path).map_or(entry, |found| found.entry);
                self.finish_dir(seen, toc)?;
            }
        }
        Ok(())
    }

    fn finish_dir(&mut self, entry: &Entry, toc: &Toc) -> Result<(), Error> {
        let path = &entry.path;
        if !path.is_root() {
            self.make_dir(path)?;
        }
        let is_opaque = toc.is_opaque(path) || toc.removes(path);
        let dir = self.tree.dir(path).and_then(|dir| dir.try_clone_to_owned());
        let dir = dir.at("open", path)?;
        if is_opaque {
            let set = Opacity::Opaque.set(&dir, self.options.notes);
            set.at("make opaque", path)?;
        }
        self.set_all(&dir, &Attributes::of_entry(entry), path)
    }

    fn set_all(&self, fd: &impl AsFd, like: &Attributes<'_>, path: &TreePath) -> Result<(), Error> {
        match self.options.identity {
            Identity::Recorded => self.record_all(fd, like, path)?,
            _ => self.set_owner_and_attributes(fd, like, path)?,
        }
        let times = times(like.mtime, &self.options.identity);
        futimens(fd, &times).at("set the time of", path)
    }

    fn set_owner_and_attributes(
        &self,
        fd: &impl AsFd,
        like: &Attributes<'_>,
        path: &TreePath,
    ) -> Result<(), Error> {
        let record = &like.record;
        if self.options.identity.has_owners() {
            let (uid, gid) = (Uid::from_raw(record.uid), Gid::from_raw(record.gid));
            fchown(fd, Some(uid), Some(gid)).at("set the owner of", path)?;
        }
        fchmod(fd, Mode::from_raw_mode(record.mode)).at("set the mode of", path)?;
        for (name, value) in like.xattrs.iter().filter(|(name, _)| is_for_disk(name)) {
            match fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
                // A file system without attributes, or an attribute that is not ours to set.
                Err(Errno::OPNOTSUPP) => {}
                Err(Errno::PERM) if self.options.identity == Identity::Single => {}
                set => set.at("set an attribute of", path)?,
            }
        }
        Ok(())
    }

    /// Writes down what this process may not set. Access lists are among it, because
    /// they could keep the builder out.
    fn record_all(
        &self,
        fd: &impl AsFd,
        like: &Attributes<'_>,
        path: &TreePath,
    ) -> Result<(), Error> {
        let kept = like.xattrs.iter().filter(|(name, _)| is_for_disk(name));
        for (name, value) in kept {
            let none = XattrFlags::empty();
            if name.starts_with(b"user.") {
                fsetxattr(fd, &name[..], value, none).at("set an attribute of", path)?;
            } else {
                ownership::set_attribute(fd, name, value, none)
                    .at("record an attribute of", path)?;
            }
        }
        ownership::write_new(fd, &like.record).at("record the owner of", path)
    }
}
