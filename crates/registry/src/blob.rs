//! Pulling blobs (distribution-spec, "Pulling blobs"): a [`Descriptor`] enters,
//! bytes leave that have its size and digest. A connection that breaks is taken up
//! again where it broke, by a `Range` request; large blobs are loaded in several parts at
//! once where the registry sends ranges.

mod arriving;
mod parts;
mod place;
mod source;
mod writer;

use std::fs::Permissions;
use std::io;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tempfile::NamedTempFile;

use crate::action::{Action, Phase};
use crate::progress::{Progress, TransferState};
use crate::stream::{Sink, Written};
use crate::{Client, Descriptor, Error, Hasher, Repository};

pub use arriving::{Arrived, Arriving, arriving};
use parts::Parts;
use place::Places;
use source::Source;

/// How large blobs are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Downloads {
    /// Bytes of one part.
    pub part: u64,
    /// Parts of one blob that are loaded at once; with 1 blobs are loaded whole.
    pub at_once: usize,
}

impl Default for Downloads {
    fn default() -> Self {
        Self {
            // Small and few, so that those at the beginning come first: the hash follows them.
            part: 16 << 20,
            at_once: 4,
        }
    }
}

impl Client {
    /// Opens a blob for reading. The reader fails at its end when what it read is not
    /// what the descriptor says, so nothing may be believed before that.
    pub async fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Blob, Error> {
        let hasher = Hasher::new(descriptor.digest.algorithm());
        let places = Places::new(self, repository, descriptor)?;
        let mut source = Source::new(places, descriptor);
        source.open().await?;
        Ok(Blob {
            source,
            hasher: Some(hasher),
        })
    }

    /// Streams a range of a blob to somebody who verifies the whole of it.
    pub(crate) fn blob_range(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, Error> {
        let places = Places::new(self, repository, descriptor)?;
        let source = Source::new(places, descriptor).starting_at(range.start);
        let left = range.end.saturating_sub(range.start);
        Ok(stream::try_unfold(
            (source, left),
            |(mut source, left)| async move {
                if left == 0 {
                    return Ok(None);
                }
                let piece = source.next_piece().await.map_err(io::Error::other)?;
                Ok(piece.map(|mut piece| {
                    // Lossless: at most the length of a piece in memory.
                    piece.truncate(left.min(piece.len() as u64) as usize);
                    let left = left - piece.len() as u64;
                    (piece, (source, left))
                }))
            },
        ))
    }

    /// Reads a small blob, such as an image configuration, into memory.
    pub async fn blob_bytes(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes, Error> {
        if descriptor.size > limit {
            let action = action(repository, descriptor);
            return Err(Error::TooLarge { action, limit });
        }
        let mut blob = self.blob(repository, descriptor).await?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = blob.next_piece().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Loads a blob into the file `dest`, which appears, or is replaced, all at once
    /// when its digest has been verified. After a failure nothing is left behind.
    pub async fn download_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        dest: &Path,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.download_arriving(repository, descriptor, dest, progress, None)
            .await
    }

    /// The same, with somebody who reads the blob meanwhile. Where there is no such one,
    /// `arriving` is none.
    pub async fn download_arriving(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        dest: &Path,
        progress: &Progress,
        arriving: Option<Arc<Arriving>>,
    ) -> Result<(), Error> {
        let places = Places::new(self, repository, descriptor)?;
        let loaded = self
            .download_from(&places, descriptor, dest, progress, arriving.as_ref())
            .await;
        match loaded {
            // A mirror that holds something else is no reason to fail.
            Err(Error::DigestMismatch { .. } | Error::SizeMismatch { .. })
                if places.has_mirrors() =>
            {
                tracing::warn!(%repository, "a mirror has other content, the registry is asked");
                let origin = places.only_origin();
                self.download_from(&origin, descriptor, dest, progress, arriving.as_ref())
                    .await
            }
            other => other,
        }
    }

    async fn download_from(
        &self,
        places: &Places,
        descriptor: &Descriptor,
        dest: &Path,
        progress: &Progress,
        arriving: Option<&Arc<Arriving>>,
    ) -> Result<(), Error> {
        let action = places.action();
        let at_dest = |source| Error::File {
            action: action.clone(),
            path: dest.to_owned(),
            source,
        };
        let (temporary, file) = create_beside(dest).map_err(at_dest)?;
        if let Some(arriving) = arriving {
            arriving.begin(temporary.reopen().map_err(at_dest)?);
        }
        let mut source = Source::new(places.clone(), descriptor);
        let bears = self.transport.connector().limits(places.origin()).downloads;
        let wanted = Downloads {
            at_once: bears.unwrap_or(self.downloads.at_once),
            part: self.downloads.part,
        };
        let hasher = match Parts::open(&mut source, wanted).await? {
            Some(parts) => {
                parts
                    .load(file, arriving.cloned(), progress, &at_dest)
                    .await?
            }
            None => {
                let hasher = Hasher::new(descriptor.digest.algorithm());
                let sink = Sink::start(Written {
                    file,
                    hasher,
                    length: 0,
                    arriving: arriving.cloned(),
                });
                let received = source.pour(&sink, progress).await;
                // The sink's own error, such as a full disk, is the cause of a refused
                // piece.
                let written = sink.finish().await.map_err(at_dest)?;
                received?;
                written.hasher
            }
        };
        source.verify(hasher)?;
        if let Some(arriving) = arriving {
            arriving.verified();
        }
        temporary
            .persist(dest)
            .map_err(|error| at_dest(error.error))?;
        progress.report(source.transfer(TransferState::Done, descriptor.size));
        Ok(())
    }
}

/// Makes an empty file in the folder of `dest`, so that it can be renamed to it.
fn create_beside(dest: &Path) -> std::io::Result<(NamedTempFile, std::fs::File)> {
    let folder = match dest.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let temporary = tempfile::Builder::new()
        .prefix(".download-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)?;
    let file = temporary.as_file().try_clone()?;
    Ok((temporary, file))
}

fn action(repository: &Repository, descriptor: &Descriptor) -> Action {
    let digest = descriptor.digest;
    let text = format!("pull blob {digest} from {repository}");
    Action::new(Phase::PullBlob(digest), repository, text)
}

/// A blob that is being read and verified.
pub struct Blob {
    source: Source,
    /// Taken when the end has been verified.
    hasher: Option<Hasher>,
}

impl Blob {
    /// Gives the next piece; none at the end, once size and digest are verified.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(hasher) = &mut self.hasher else {
            return Ok(None);
        };
        if let Some(piece) = self.source.next_piece().await? {
            hasher.update(&piece);
            return Ok(Some(piece));
        }
        match self.hasher.take() {
            Some(hasher) => self.source.verify(hasher).map(|()| None),
            None => Ok(None),
        }
    }

    /// Turns the reader into a stream; an error ends it.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, Error>> {
        stream::try_unfold(self, |mut blob| async move {
            let piece = blob.next_piece().await?;
            Ok(piece.map(|piece| (piece, blob)))
        })
        .into_stream()
        .boxed()
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({})", self.source.descriptor.digest)
    }
}
