//! A blob becomes its [`DiffId`] and [`Toc`]; whoever wants the content sees it pass
//! by (OCI image-spec, layer.md).
//!
//! Layers are hostile: sizes are limited ([`Limits`]), names cannot leave the tree,
//! whatever could not stand on a disk beside the rest is refused. The digest covers
//! every byte of the uncompressed stream, those after the end of the archive too.

use std::io::{self, Read};
use std::sync::Arc;

use ocibuild_registry::{Hasher, media_type};
use serde::{Deserialize, Serialize};

use super::accounts::Keep;
use super::entries::{Entries, RawEntry, Stored};
use super::sparse::SparseMap;
use super::stream::Stream;
use super::toc_builder::{Cost, TocBuilder};
use super::{DiffId, EntryMeta, Error, InvalidPath, Kind, Limits, Toc, TreePath, tar};

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As its first bytes say.
    #[default]
    Detect,
    /// Not at all.
    Plain,
    /// With gzip, in one member or several.
    Gzip,
    /// With Zstandard.
    Zstd,
    /// As its first bytes say, and they may say bzip2 or xz: an archive that is no layer.
    Archive,
}

impl Encoding {
    /// Gives the compression that a media type names; [`Encoding::Detect`] where it is not known.
    pub fn of_media_type(text: &str) -> Self {
        match text {
            media_type::LAYER_TAR | media_type::DOCKER_LAYER_TAR => Self::Plain,
            media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Self::Gzip,
            media_type::LAYER_ZSTD => Self::Zstd,
            _ => Self::Detect,
        }
    }
}

/// Sees the entries of a layer in the order of the tar.
///
/// An entry is checked against those before it when it is shown: its parents are
/// directories or not there, its hard link names a file that was shown.
pub trait Visitor {
    /// What stops the reading.
    type Error: From<Error>;

    /// Sees an entry; `content` is empty for everything but a file and need not be read.
    fn entry(&mut self, meta: &EntryMeta, content: &mut dyn Read) -> Result<(), Self::Error>;
}

/// Sees nothing: for digest and table alone.
impl Visitor for () {
    type Error = Error;

    fn entry(&mut self, _: &EntryMeta, _: &mut dyn Read) -> Result<(), Error> {
        Ok(())
    }
}

/// What reading a layer gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLayer {
    /// Digest of the uncompressed stream.
    pub diff_id: DiffId,
    /// Size of the uncompressed stream.
    pub uncompressed_size: u64,
    /// What the layer holds.
    pub toc: Arc<Toc>,
}

/// Reads a whole layer and shows its entries to `visitor`. Another thread decompresses.
pub fn read_layer<V: Visitor>(
    blob: impl Read + Send,
    encoding: Encoding,
    limits: &Limits,
    visitor: &mut V,
) -> Result<ReadLayer, V::Error> {
    std::thread::scope(|scope| {
        let stream = Stream::ahead(scope, blob, encoding, limits)?;
        read_stream(stream, limits, visitor)
    })
}

fn read_stream<V: Visitor>(
    stream: Stream<'_>,
    limits: &Limits,
    visitor: &mut V,
) -> Result<ReadLayer, V::Error> {
    let mut entries = Entries::new(stream, limits);
    let mut budget = Budget::new(limits);
    let mut toc = TocBuilder::default();
    while let Some(raw) = entries.next()? {
        budget.spend(&raw, toc.implied())?;
        match Place::of(&raw.name, limits)? {
            Place::Ignored => {}
            Place::Whiteout(path) => toc.whiteout(path)?,
            Place::Opaque(path) => toc.opaque(path)?,
            Place::Entry(path) => take_entry(path, raw, &mut entries, &mut toc, limits, visitor)?,
        }
    }
    let (digest, uncompressed_size) = entries.into_stream().finish()?;
    Ok(ReadLayer {
        diff_id: DiffId(digest),
        uncompressed_size,
        toc: Arc::new(toc.finish()),
    })
}

fn take_entry<V: Visitor>(
    path: TreePath,
    mut raw: RawEntry,
    entries: &mut Entries<'_>,
    toc: &mut TocBuilder,
    limits: &Limits,
    visitor: &mut V,
) -> Result<(), V::Error> {
    let sparse = raw.take_sparse(limits)?;
    let mut meta = raw.into_meta(path, limits)?;
    toc.admit(&mut meta)?;
    let mut accounts = std::mem::take(&mut toc.accounts);
    let mut content = Hashed {
        from: Keep {
            from: Body::new(sparse, entries),
            copy: accounts.slot(&meta),
        },
        hasher: Hasher::sha256(),
    };
    visitor.entry(&meta, &mut content)?;
    io::copy(&mut content, &mut io::sink()).map_err(Error::from_content)?;
    let digest = content.hasher.finish();
    toc.accounts = accounts;
    toc.insert(meta.into_entry(digest));
    Ok(())
}

/// What the name of an entry means (image-spec, layer.md, "Whiteouts").
enum Place {
    Entry(TreePath),
    Whiteout(TreePath),
    Opaque(TreePath),
    /// Bookkeeping of AUFS, which early Docker left in layers.
    Ignored,
}

impl Place {
    fn of(name: &[u8], limits: &Limits) -> Result<Self, Error> {
        let path = checked_path(name, limits)?;
        let parent = path.parent().unwrap_or_else(TreePath::root);
        if path.file_name() == tar::OPAQUE_NAME {
            return Ok(Self::Opaque(parent));
        }
        if path.components().any(|part| part.starts_with(b".wh..wh.")) {
            return Ok(Self::Ignored);
        }
        if parent
            .components()
            .any(|part| part.starts_with(tar::WHITEOUT_PREFIX))
        {
            return Err(InvalidPath {
                path: name.to_vec(),
                reason: "it lies below a whiteout",
            }
            .into());
        }
        match path.file_name().strip_prefix(tar::WHITEOUT_PREFIX) {
            Some(removed) => Ok(Self::Whiteout(parent.join(removed)?)),
            None => Ok(Self::Entry(path)),
        }
    }
}

pub(super) fn checked_path(name: &[u8], limits: &Limits) -> Result<TreePath, Error> {
    let path = TreePath::parse(name)?;
    let longest = path.components().map(<[u8]>::len).max().unwrap_or(0);
    for (what, length, limit) in [
        ("bytes in a path", path.as_bytes().len(), limits.name),
        ("bytes in a name", longest, limits.component),
    ] {
        if length > limit {
            return Err(Error::Limit {
                what,
                limit: limit as u64,
            });
        }
    }
    Ok(path)
}

impl RawEntry {
    /// Gives the map of a sparse file, and the entry its full size.
    pub(super) fn take_sparse(&mut self, limits: &Limits) -> Result<Option<SparseMap>, Error> {
        let sparse = self.sparse.take();
        if let Some(map) = &sparse {
            // The stream cannot limit what is not in it.
            self.size = map.size;
            if map.size > limits.size {
                return Err(Error::Limit {
                    what: "bytes in a sparse file",
                    limit: limits.size,
                });
            }
        }
        Ok(sparse)
    }

    /// Judges what the tar says.
    pub(super) fn into_meta(self, path: TreePath, limits: &Limits) -> Result<EntryMeta, Error> {
        let kind = self.kind(&path, limits)?;
        let offset = self.offset;
        let owner = |id: i64| {
            // The highest id means "leave it as it is" to chown.
            let id = u32::try_from(id).ok().filter(|&id| id != u32::MAX);
            let reason = "an owner is out of range";
            id.ok_or(Error::Malformed { offset, reason })
        };
        let (uid, gid) = (owner(self.uid)?, owner(self.gid)?);
        let mut xattrs = self.xattrs;
        if xattrs.iter().any(|(name, _)| !is_xattr_name(name)) {
            let reason = "the name of an attribute is invalid";
            return Err(Error::Malformed { offset, reason });
        }
        xattrs.sort();
        Ok(EntryMeta {
            path,
            kind,
            mode: (self.mode & 0o7777) as u32,
            uid,
            gid,
            mtime: self.mtime,
            xattrs,
        })
    }

    fn kind(&self, path: &TreePath, limits: &Limits) -> Result<Kind<u64>, Error> {
        let offset = self.offset;
        let number = |value: i64| {
            let reason = "a device number is out of range";
            u32::try_from(value).map_err(|_| Error::Malformed { offset, reason })
        };
        let unsupported = |kind: &str| Error::Unsupported {
            path: path.to_string(),
            kind: kind.to_owned(),
        };
        Ok(match self.type_flag {
            // Before ustar a directory was a file with a slash at its end.
            0 if self.name.ends_with(b"/") => Kind::Dir,
            b'0' | 0 | b'7' | b'S' => Kind::File(self.size),
            b'1' => Kind::Hardlink {
                target: checked_path(&self.link, limits)?,
            },
            b'2' => Kind::Symlink {
                target: self.symlink_target(limits)?,
            },
            b'3' if (self.major, self.minor) == (0, 0) => {
                // On an overlay file system this would remove a file.
                return Err(unsupported("character device 0:0"));
            }
            b'3' => Kind::Char {
                major: number(self.major)?,
                minor: number(self.minor)?,
            },
            b'4' => Kind::Block {
                major: number(self.major)?,
                minor: number(self.minor)?,
            },
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => return Err(unsupported(&other.escape_ascii().to_string())),
        })
    }

    fn symlink_target(&self, limits: &Limits) -> Result<Vec<u8>, Error> {
        if self.link.is_empty() || self.link.contains(&0) {
            return Err(Error::Malformed {
                offset: self.offset,
                reason: "a symbolic link has an invalid target",
            });
        }
        if self.link.len() > limits.name {
            return Err(Error::Limit {
                what: "bytes in a link target",
                limit: limits.name as u64,
            });
        }
        Ok(self.link.clone())
    }
}

fn is_xattr_name(name: &[u8]) -> bool {
    (1..=255).contains(&name.len()) && !name.contains(&0)
}

/// What a layer has taken of the limits that count over the whole of it.
pub(super) struct Budget<'a> {
    limits: &'a Limits,
    spent: Cost,
}

impl<'a> Budget<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            spent: Cost::default(),
        }
    }

    /// Counts an entry; `implied` is the cost of the directories that no entry names.
    pub(super) fn spend(&mut self, raw: &RawEntry, implied: Cost) -> Result<(), Error> {
        let exceeded = |what, limit| Err(Error::Limit { what, limit });
        let xattrs: usize = raw.xattrs.iter().map(|(n, v)| n.len() + v.len()).sum();
        if xattrs > self.limits.xattrs {
            let limit = self.limits.xattrs as u64;
            return exceeded("bytes in extended attributes", limit);
        }
        self.spent.entries += 1;
        self.spent.metadata += (raw.name.len() + raw.link.len() + xattrs) as u64;
        if self.spent.entries + implied.entries > self.limits.entries {
            return exceeded("entries", self.limits.entries);
        }
        if self.spent.metadata + implied.metadata > self.limits.metadata {
            return exceeded("bytes of names and attributes", self.limits.metadata);
        }
        Ok(())
    }
}

/// The content of an entry, with its holes filled.
pub(super) enum Body<'a, 'r> {
    Plain(Stored<'a, 'r>),
    Sparse(Box<dyn Read + 'a>),
}

impl<'a, 'r> Body<'a, 'r> {
    pub(super) fn new(sparse: Option<SparseMap>, entries: &'a mut Entries<'r>) -> Self {
        match sparse {
            None => Self::Plain(entries.content()),
            Some(map) => Self::Sparse(Box::new(map.expand(entries.content()))),
        }
    }
}

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(content) => content.read(buffer),
            Self::Sparse(content) => content.read(buffer),
        }
    }
}

struct Hashed<R> {
    from: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
