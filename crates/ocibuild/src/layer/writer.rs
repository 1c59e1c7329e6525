//! Entries in walk order become a blob: canonical tar, both digests and the table
//! of contents in one pass (OCI image-spec, layer.md).
//!
//! The caller's thread reads content and hashes it and the tar; compression and the
//! digest of the blob go on beside it ([`Options::threads`]). Memory holds a few
//! blocks and the table, never a file.

use std::io::{self, Read, Write};
use std::sync::Arc;

use ocibuild_registry::{Descriptor, Digest, Hasher};

use super::accounts::Keep;
use super::error::Found;
use super::pipeline::Pipeline;
use super::toc_builder::TocBuilder;
use super::{DiffId, EntryMeta, Error, Kind, Options, Toc, TreePath, tar};

/// A layer that has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size: u64,
    /// Size of the uncompressed tar.
    pub uncompressed_size: u64,
    /// Media type of the blob.
    pub media_type: &'static str,
    /// What the layer holds.
    pub toc: Arc<Toc>,
}

impl Finished {
    /// Gives the descriptor for a manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type, self.digest, self.size)
    }
}

/// Writes one layer.
pub struct LayerWriter<W> {
    pipeline: Pipeline<W>,
    block: Block,
    diff: Hasher,
    uncompressed_size: u64,
    toc: TocBuilder,
    options: Options,
    last: Option<(TreePath, Rank)>,
    /// An entry failed half way, so the tar is not one any more.
    broken: bool,
}

/// What may follow each other at one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It removes what is below, so it must come before what replaces that.
    Whiteout,
    Entry,
    Opaque,
}

/// The block of tar that is being filled.
struct Block {
    bytes: Vec<u8>,
    filled: usize,
}

impl<W: Write + Send + 'static> LayerWriter<W> {
    /// Begins a layer whose blob goes to `out`, in large pieces.
    pub fn new(options: Options, out: W) -> Result<Self, Error> {
        Ok(Self {
            pipeline: Pipeline::new(&options, out).map_err(Error::Write)?,
            block: Block::new(options.compression.block_size()),
            diff: Hasher::sha256(),
            uncompressed_size: 0,
            toc: TocBuilder::default(),
            options,
            last: None,
            broken: false,
        })
    }

    /// Adds an entry. A file's content must have exactly the size that `meta` says;
    /// whatever is not a file has none. Entries come in walk order, each path once.
    pub fn append(
        &mut self,
        meta: &EntryMeta,
        content: Option<&mut dyn Read>,
    ) -> Result<(), Error> {
        self.guarded(&meta.path, Rank::Entry, |layer| {
            let mut meta = meta.clone();
            if let Some(latest) = layer.options.clamp_mtime {
                meta.mtime = meta.mtime.min(latest);
            }
            meta.mode &= 0o7777;
            meta.xattrs.sort();
            layer.toc.admit(&mut meta)?;
            let mut header = Vec::with_capacity(tar::BLOCK);
            tar::push_header(&mut header, &meta)?;
            layer.push(&header)?;
            let digest = layer.push_content(&meta, content)?;
            layer.toc.insert(meta.into_entry(digest));
            Ok(())
        })
    }

    /// Removes a path of lower layers.
    pub fn whiteout(&mut self, path: &TreePath) -> Result<(), Error> {
        self.guarded(path, Rank::Whiteout, |layer| {
            layer.toc.whiteout(path.clone())?;
            let mut header = Vec::with_capacity(tar::BLOCK);
            tar::push_whiteout(&mut header, path)?;
            layer.push(&header)
        })
    }

    /// Hides everything that lower layers have in a directory; comes directly after
    /// the directory's own entry.
    pub fn opaque(&mut self, dir: &TreePath) -> Result<(), Error> {
        self.guarded(dir, Rank::Opaque, |layer| {
            layer.toc.opaque(dir.clone())?;
            let mut header = Vec::with_capacity(tar::BLOCK);
            tar::push_opaque(&mut header, dir)?;
            layer.push(&header)
        })
    }

    /// Ends the layer and gives back where the blob was written.
    pub fn finish(mut self) -> Result<(Finished, W), Error> {
        if self.broken {
            return Err(Error::Incomplete);
        }
        self.push(&[0; 2 * tar::BLOCK])?;
        if self.block.filled > 0 {
            self.submit()?;
        }
        let blob = self.pipeline.finish().map_err(Error::Write)?;
        let diff_id = DiffId(self.diff.finish());
        let finished = Finished {
            diff_id,
            digest: blob.digest.unwrap_or(diff_id.0),
            size: blob.size,
            uncompressed_size: self.uncompressed_size,
            media_type: self.options.compression.media_type(),
            toc: Arc::new(self.toc.finish()),
        };
        Ok((finished, blob.out))
    }

    /// Runs one step; after a step that failed no other is taken.
    fn guarded(
        &mut self,
        path: &TreePath,
        rank: Rank,
        step: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(Error::Incomplete);
        }
        self.check_name(path, rank)?;
        let place = (path.clone(), rank);
        if let Some(last) = self.last.as_ref().filter(|last| **last >= place) {
            return Err(Error::Order {
                path: place.0,
                last: last.0.clone(),
            });
        }
        step(self)?;
        self.last = Some(place);
        self.broken = false;
        Ok(())
    }

    /// A file whose name looks like a whiteout would remove something when it is read.
    fn check_name(&self, path: &TreePath, rank: Rank) -> Result<(), Error> {
        let reason = if path.file_name().starts_with(tar::WHITEOUT_PREFIX) {
            "its name begins with \".wh.\", which marks removed files"
        } else if path.is_root() && rank == Rank::Whiteout {
            "the root cannot be removed"
        } else {
            return Ok(());
        };
        Err(Error::Unrepresentable {
            path: path.clone(),
            reason,
        })
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = self.block.room();
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.advance(now.len())?;
            bytes = later;
        }
        Ok(())
    }

    fn push_content(
        &mut self,
        meta: &EntryMeta,
        content: Option<&mut dyn Read>,
    ) -> Result<Digest, Error> {
        let size = match meta.kind {
            Kind::File(size) => size,
            _ => 0,
        };
        let mut accounts = std::mem::take(&mut self.toc.accounts);
        let mut nothing = io::empty();
        let mut content = Keep {
            from: content.unwrap_or(&mut nothing),
            copy: accounts.slot(meta),
        };
        let digest = self.copy_content(&meta.path, size, &mut content)?;
        self.toc.accounts = accounts;
        self.push(&[0; tar::BLOCK][..tar::padding(size)])?;
        Ok(digest)
    }

    /// Reads content straight into the block, so that it is copied once.
    fn copy_content(
        &mut self,
        path: &TreePath,
        size: u64,
        content: &mut impl Read,
    ) -> Result<Digest, Error> {
        let changed = |found| Error::Changed {
            path: path.clone(),
            expected: size,
            found,
        };
        let failed = |source| Error::Content {
            path: path.clone(),
            source,
        };
        let mut hasher = Hasher::sha256();
        let mut left = size;
        while left > 0 {
            let room = self.block.room();
            let wanted = usize::try_from(left).map_or(room.len(), |left| left.min(room.len()));
            let count = read_some(content, &mut room[..wanted]).map_err(failed)?;
            if count == 0 {
                return Err(changed(Found::Only(size - left)));
            }
            hasher.update(&room[..count]);
            left -= count as u64;
            self.advance(count)?;
        }
        match read_some(content, &mut [0]).map_err(failed)? {
            0 => Ok(hasher.finish()),
            _ => Err(changed(Found::More)),
        }
    }

    fn advance(&mut self, count: usize) -> Result<(), Error> {
        self.block.filled += count;
        match self.block.room() {
            [] => self.submit(),
            _ => Ok(()),
        }
    }

    fn submit(&mut self) -> Result<(), Error> {
        let room = self.pipeline.room(self.options.compression.block_size());
        let bytes = self.block.take(room);
        self.diff.update(&bytes);
        self.uncompressed_size += bytes.len() as u64;
        self.pipeline.submit(bytes).map_err(Error::Write)
    }
}

impl<W> std::fmt::Debug for LayerWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerWriter")
            .field("options", &self.options)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl Block {
    fn new(size: usize) -> Self {
        Self {
            bytes: vec![0; size],
            filled: 0,
        }
    }

    /// Gives what is still to be filled.
    fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Gives what was filled and begins an empty block in the room.
    fn take(&mut self, room: Vec<u8>) -> Vec<u8> {
        let empty = Self {
            bytes: room,
            filled: 0,
        };
        let Self { mut bytes, filled } = std::mem::replace(self, empty);
        bytes.truncate(filled);
        bytes
    }
}

fn read_some(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
