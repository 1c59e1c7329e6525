//! An archive that ADD extracts, laid over the destination as tar(1) would extract it
//! with the destination as its root: names and links never lead out of there.
//!
//! A member replaces what has its name, but for a directory that meets a directory,
//! which takes the metadata of the member. Whose root the archive itself names stays as
//! it is. `--chown` overrides owners, `--chmod` means nothing.

use std::collections::VecDeque;

use super::place::Placing;
use super::{Bytes, Error, Inode, Placed, PlacedFrom};
use crate::layer::{Content, Entry, EntryMeta, Kind, TreePath, names};
use crate::registry::Digest;

/// Symbolic links that may stand on the way to one member.
const MAX_LINKS: usize = 255;

/// The one attribute that layers keep.
const CAPABILITY: &[u8] = b"security.capability";

/// What an archive holds, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    /// The number of the archive among those of the copy.
    pub index: usize,
    /// Its members.
    pub members: Vec<Member>,
}

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Type and metadata. The path, and the target of a hard link, are below the
    /// archive's root: an absolute name begins there and `..` does not leave it.
    pub meta: EntryMeta,
    /// Where the content of a file begins among all contents, in bytes.
    pub offset: u64,
}

impl Placing<'_> {
    /// Extracts an archive into the directory `target`. Files of the stage that hard
    /// links name are taken from the files with the index `base_files`.
    pub(super) fn archive(
        &mut self,
        archive: &Archive,
        base_files: usize,
        target: &TreePath,
    ) -> Result<(), Error> {
        self.make_folders_with(target, 0o755)?;
        let mut extracting = Extracting {
            placing: self,
            target,
            archive: archive.index,
            base_files,
        };
        for (number, member) in archive.members.iter().enumerate() {
            extracting.member(number, &member.meta)?;
        }
        Ok(())
    }
}

struct Extracting<'p, 'a> {
    placing: &'p mut Placing<'a>,
    target: &'p TreePath,
    archive: usize,
    base_files: usize,
}

/// Where the bytes of a file are, and which file it is.
type Contents = (Kind<Content>, Bytes, Option<Inode>);

impl Extracting<'_, '_> {
    fn member(&mut self, number: usize, meta: &EntryMeta) -> Result<(), Error> {
        let failed = |reason| Error::Member {
            member: meta.path.to_string(),
            reason,
        };
        let Some(parent) = meta.path.parent() else {
            return match meta.kind {
                Kind::Dir => Ok(()),
                _ => Err(failed("it would replace the destination")),
            };
        };
        let parent = self.resolve(&parent).map_err(failed)?;
        self.placing.make_implied(&parent)?;
        let at = parent
            .join(meta.path.file_name())
            .map_err(|_| failed("it has no name"))?;
        let (kind, bytes, inode) = match &meta.kind {
            Kind::Hardlink { target } => self.linked(number, meta, target).map_err(failed)?,
            kind => self.own_contents(number, kind),
        };
        self.clear(&at, &kind).map_err(failed)?;
        let placed = Placed {
            entry: self.entry(meta, at.clone(), kind),
            origin: PlacedFrom::Source,
            bytes,
            inode,
        };
        self.placing.placed.insert(at, placed);
        Ok(())
    }

    fn entry(&self, meta: &EntryMeta, at: TreePath, kind: Kind<Content>) -> Entry {
        let kind_is_link = matches!(kind, Kind::Symlink { .. });
        let mut entry = Entry {
            path: at,
            kind,
            // A symbolic link has all permissions, whatever the archive says.
            mode: match kind_is_link {
                true => 0o777,
                false => meta.mode,
            },
            uid: meta.uid,
            gid: meta.gid,
            // The reference builder extracts nothing that is older.
            mtime: meta.mtime.max(0),
            xattrs: meta.xattrs.clone(),
            implicit: false,
        };
        entry.xattrs.retain(|(name, _)| name == CAPABILITY);
        self.placing.own(&mut entry);
        entry
    }

    fn own_contents(&self, number: usize, kind: &Kind<u64>) -> Contents {
        let unknown = Digest::from_sha256([0; 32]);
        let kind = kind.clone().map(|size| Content {
            size,
            digest: unknown,
        });
        match kind {
            Kind::File(_) => {
                let inode = Inode {
                    group: self.placing.group,
                    number,
                };
                (kind, Bytes::Member(self.archive, number), Some(inode))
            }
            other => (other, Bytes::None, None),
        }
    }

    /// Finds the file that a hard link names, in the archive or in the stage. A layer cannot
    /// link to a file of another layer, so one of the stage comes into this one, with the
    /// metadata of its new name.
    fn linked(
        &mut self,
        number: usize,
        meta: &EntryMeta,
        target: &TreePath,
    ) -> Result<Contents, &'static str> {
        let missing = "it is a link to a file that is not there";
        let parent = target.parent().ok_or(missing)?;
        let path = self.resolve(&parent)?.join(target.file_name());
        let path = path.map_err(|_| missing)?;
        match self.placing.placed.get(&path) {
            Some(placed) => match placed.entry.kind {
                Kind::Dir => Err("it is a hard link to a directory"),
                _ => Ok((
                    placed.entry.kind.clone(),
                    placed.bytes.clone(),
                    placed.inode,
                )),
            },
            None => {
                let place = self.placing.base.content_of(&path).ok_or(missing)?;
                let inode = Inode {
                    group: self.placing.group,
                    number,
                };
                let bytes = Bytes::Source(self.base_files, path.clone());
                let contents = (Kind::File(place.content), bytes, Some(inode));
                let (kind, bytes, inode) = contents.clone();
                let placed = Placed {
                    entry: self.entry(meta, path.clone(), kind),
                    origin: PlacedFrom::Source,
                    bytes,
                    inode,
                };
                self.placing.placed.insert(path, placed);
                Ok(contents)
            }
        }
    }

    /// Makes room for a member.
    fn clear(&mut self, at: &TreePath, kind: &Kind<Content>) -> Result<(), &'static str> {
        let Some(old) = self.placing.kind_at(at) else {
            return Ok(());
        };
        let base_is_folder = || {
            let found = self.placing.base.lookup(at);
            found.is_some_and(|found| found.entry.kind.is_dir())
        };
        match (old.is_dir(), kind.is_dir()) {
            (true, true) => Ok(()),
            (true, false) => {
                let below = self.placing.placed.range(at.clone()..);
                let below = below.map(|(path, _)| path.clone());
                let gone: Vec<TreePath> = below.take_while(|path| path.starts_with(at)).collect();
                for path in gone {
                    self.placing.placed.remove(&path);
                }
                Ok(())
            }
            // What the stage has below would show again.
            (false, true) if base_is_folder() => {
                Err("it replaces a directory of the stage that the archive has replaced before")
            }
            (false, _) => Ok(()),
        }
    }

    /// Finds the directory that a path of the archive means: links are followed, with the
    /// destination as their root. Components that are not there are taken as they stand.
    fn resolve(&self, path: &TreePath) -> Result<TreePath, &'static str> {
        let mut todo: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        let mut at = self.target.clone();
        let mut links = 0;
        // All of a link's target has to be there: what comes before so many last components.
        let mut after_links = usize::MAX;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                at = match at.parent() {
                    Some(above) if at != *self.target => above,
                    _ => at,
                };
                continue;
            }
            let next = at.join(&name).map_err(|_| "its name is invalid")?;
            match self.placing.kind_at(&next) {
                Some(Kind::Dir) => at = next,
                None if todo.len() >= after_links => {
                    return Err("it lies below a link that leads nowhere");
                }
                None => at = next,
                Some(Kind::Symlink { target }) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("it lies below too many links");
                    }
                    if target.starts_with(b"/") {
                        at = self.target.clone();
                    }
                    after_links = after_links.min(todo.len());
                    for name in names(&target).rev() {
                        todo.push_front(name.to_vec());
                    }
                }
                Some(_) => return Err("it lies below something that is not a directory"),
            }
        }
        Ok(at)
    }
}
