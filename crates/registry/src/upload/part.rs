//! A blob on its way, and the part of it that one request carries. Bytes are streamed
//! from where they are, as often as it takes.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use super::BlobOutcome;
use super::flow::Brake;
use crate::action::Action;
use crate::progress::{Progress, Transfer, TransferState};
use crate::transport::Activity;
use crate::{Client, Descriptor, Error, Repository};

const PIECE: u64 = 256 * 1024;

/// Where the bytes of a blob are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobSource {
    /// In memory.
    Bytes(Bytes),
    /// In a file, which is read for each attempt.
    File(PathBuf),
    /// In another repository, perhaps of another registry: they go from there to here and
    /// are kept nowhere.
    Remote(RemoteBlob),
}

/// A repository that has a blob, and the client that reads it.
#[derive(Debug, Clone)]
pub struct RemoteBlob {
    /// Who reads.
    pub client: Client,
    /// Where the blob is.
    pub repository: Repository,
}

impl PartialEq for RemoteBlob {
    fn eq(&self, other: &Self) -> bool {
        self.repository == other.repository
            && Arc::ptr_eq(&self.client.transport, &other.client.transport)
    }
}

impl Eq for RemoteBlob {}

/// A blob on its way.
pub(crate) struct Upload<'a> {
    source: &'a BlobSource,
    pub(super) descriptor: &'a Descriptor,
    progress: &'a Progress,
    position: Arc<AtomicU64>,
    reached: Arc<AtomicU64>,
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        source: &'a BlobSource,
        descriptor: &'a Descriptor,
        progress: &'a Progress,
    ) -> Self {
        Self {
            source,
            descriptor,
            progress,
            position: Arc::default(),
            reached: Arc::default(),
        }
    }

    /// Gives the number of bytes of the blob.
    pub(super) fn size(&self) -> u64 {
        self.descriptor.size
    }

    /// Gives how far into the blob the last request has come, as far as this side
    /// knows: what the machine still held back is counted as sent.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Gives how far into the blob any request has come.
    pub(super) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }

    /// Says how far into the blob a request has come that was not of this transfer.
    pub(super) fn note_reached(&self, reached: u64) {
        self.reached.fetch_max(reached, Ordering::Relaxed);
    }

    pub(super) fn report_outcome(&self, outcome: &BlobOutcome) {
        let state = match outcome {
            BlobOutcome::Exists => TransferState::Exists,
            BlobOutcome::Mounted(_) => TransferState::Mounted,
            BlobOutcome::Uploaded => TransferState::Done,
        };
        self.progress.report(self.transfer(state, self.size()));
    }

    fn transfer(&self, state: TransferState, current: u64) -> Transfer {
        Transfer {
            digest: self.descriptor.digest,
            current,
            total: self.size(),
            state,
        }
    }

    fn check_size(&self, action: &Action, actual: u64) -> Result<(), Error> {
        if actual == self.size() {
            return Ok(());
        }
        Err(Error::SizeMismatch {
            action: action.clone(),
            expected: self.size(),
            actual,
        })
    }
}

/// The bytes of a blob that one request carries.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(super) upload: &'a Upload<'a>,
    /// First byte; at most the size of the blob.
    pub(super) offset: u64,
    /// Number of bytes; ends within the blob.
    pub(super) length: u64,
    /// How long a refusal is waited for behind the first bytes, where one may come.
    pub(super) hold: Option<Duration>,
}

impl Part<'_> {
    /// Gives the number of bytes that the body has.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Makes the body of one attempt; its movement is noted in `activity`, and `brake`
    /// stops it.
    pub(crate) fn body(
        &self,
        action: &Action,
        activity: &Activity,
        brake: &Brake,
    ) -> Result<reqwest::Body, Error> {
        let upload = self.upload;
        let body = match upload.source {
            BlobSource::Bytes(bytes) => {
                upload.check_size(action, bytes.len() as u64)?;
                let pieces = pieces(bytes.clone(), self.offset, self.length);
                self.watched(pieces, activity, brake)
            }
            BlobSource::File(path) => {
                let at_path = |source| Error::File {
                    action: action.clone(),
                    path: path.clone(),
                    source,
                };
                let file = File::open(path).map_err(at_path)?;
                upload.check_size(action, file.metadata().map_err(at_path)?.len())?;
                let stream = crate::stream::read(file, self.offset, self.length);
                self.watched(stream, activity, brake)
            }
            BlobSource::Remote(RemoteBlob { client, repository }) => {
                let (from, end) = (self.offset, self.offset + self.length);
                let stream = client.blob_range(repository, upload.descriptor, from..end)?;
                self.watched(stream, activity, brake)
            }
        };
        Ok(body)
    }

    fn watched(
        &self,
        stream: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        activity: &Activity,
        brake: &Brake,
    ) -> reqwest::Body {
        let stream = brake.body(stream, self.length, self.hold);
        let (activity, progress) = (activity.clone(), self.upload.progress.clone());
        let position = Arc::clone(&self.upload.position);
        let reached = Arc::clone(&self.upload.reached);
        let mut transfer = self.upload.transfer(TransferState::Moving, self.offset);
        position.store(self.offset, Ordering::Relaxed);
        progress.report(transfer);
        reqwest::Body::wrap_stream(stream.inspect(move |piece| {
            if let Ok(piece) = piece {
                transfer.current += piece.len() as u64;
                position.store(transfer.current, Ordering::Relaxed);
                reached.fetch_max(transfer.current, Ordering::Relaxed);
                activity.touch();
                progress.report(transfer);
            }
        }))
    }
}

/// Makes the body of one attempt that sends bytes of this memory; its movement is noted in
/// `activity`, and `brake` stops it.
pub(crate) fn body_of(bytes: &Bytes, activity: &Activity, brake: &Brake) -> reqwest::Body {
    let length = bytes.len() as u64;
    if length <= PIECE {
        return bytes.clone().into();
    }
    let activity = activity.clone();
    let body = brake.body(pieces(bytes.clone(), 0, length), length, None);
    reqwest::Body::wrap_stream(body.inspect(move |_| activity.touch()))
}

/// Cuts bytes into pieces without copying them, so that progress can be seen.
fn pieces(
    bytes: Bytes,
    offset: u64,
    length: u64,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let end = offset + length;
    let mut next = offset;
    stream::iter(std::iter::from_fn(move || {
        let first = next;
        next = end.min(first + PIECE);
        // Both lie within bytes in memory, whose number is a `usize`.
        (first < end).then(|| Ok(bytes.slice(first as usize..next as usize)))
    }))
}
