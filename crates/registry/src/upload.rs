//! Uploading one blob (distribution-spec, "Pushing blobs"): is it there? can it be
//! mounted? else a session and one streaming PUT, which local registries take two to
//! three times as fast as chunks. A failed PUT is repeated in a new session, since
//! what an old one has kept is not known.

use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use url::Url;

use crate::action::{Action, Phase};
use crate::auth::Access;
use crate::progress::{Progress, Transfer, TransferState};
use crate::pull::content_digest;
use crate::transport::{Activity, Body, Request};
use crate::{Client, Descriptor, Digest, Error, Repository};

/// Repositories from which mounting is tried.
const MAX_MOUNTS: usize = 3;
const PIECE: usize = 256 * 1024;
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Where the bytes of a blob are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobSource {
    /// In memory.
    Bytes(Bytes),
    /// In a file, which is read once for each attempt.
    File(PathBuf),
}

/// How a blob came to be in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobOutcome {
    /// It was there.
    Exists,
    /// The registry took it over from this repository.
    Mounted(Repository),
    /// It was sent.
    Uploaded,
}

impl Client {
    /// Tells whether a repository has a blob.
    pub async fn exists(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let text = format!("look for blob {digest} in {repository}");
        let action = Action::new(Phase::FindBlob(*digest), repository, text);
        let path = format!("blobs/{digest}");
        let url = self.transport.url(repository, &path, &action)?;
        // The scope of a push, so that one token serves the whole upload.
        let access = Access::push(repository);
        let request = Request::new(action, Method::HEAD, url, access);
        match self.transport.send(&request).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Brings a blob into a repository with as few bytes as possible. Repositories of
    /// other registries in `mount_from` are passed over.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        source: &BlobSource,
        mount_from: &[Repository],
        progress: &Progress,
    ) -> Result<BlobOutcome, Error> {
        let upload = Upload {
            source,
            descriptor,
            progress,
        };
        let mut backoff = self.transport.backoff();
        loop {
            // Asked anew before every attempt: the one before may have got through
            // although its answer did not.
            match self.push_once(repository, &upload, mount_from).await {
                Ok(outcome) => {
                    upload.report_outcome(&outcome);
                    return Ok(outcome);
                }
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    async fn push_once(
        &self,
        repository: &Repository,
        upload: &Upload<'_>,
        mount_from: &[Repository],
    ) -> Result<BlobOutcome, Error> {
        let digest = &upload.descriptor.digest;
        if self.exists(repository, digest).await? {
            return Ok(BlobOutcome::Exists);
        }
        let session = match self.try_mounts(repository, digest, mount_from).await? {
            Mount::Done(from) => return Ok(BlobOutcome::Mounted(from)),
            Mount::Session(session) => session,
            Mount::None => self.begin(repository, digest).await?,
        };
        self.put(repository, upload, session).await?;
        Ok(BlobOutcome::Uploaded)
    }

    async fn try_mounts(
        &self,
        repository: &Repository,
        digest: &Digest,
        mount_from: &[Repository],
    ) -> Result<Mount, Error> {
        let mut session = Mount::None;
        let usable = |from: &&Repository| {
            from.registry() == repository.registry() && from.path() != repository.path()
        };
        for from in mount_from.iter().filter(usable).take(MAX_MOUNTS) {
            if let Mount::Session(unused) = session {
                self.cancel(repository, digest, unused).await;
            }
            session = match self.mount(repository, digest, from).await {
                Ok(Mount::Done(from)) => return Ok(Mount::Done(from)),
                Ok(other) => other,
                // No right to read there, or no mounting here: the upload still works.
                Err(error) if error.status().is_some_and(|s| (400..500).contains(&s)) => {
                    tracing::debug!(%error, "a blob cannot be mounted");
                    Mount::None
                }
                Err(error) if error.is_denied() => Mount::None,
                Err(error) => return Err(error),
            };
        }
        Ok(session)
    }

    async fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
    ) -> Result<Mount, Error> {
        let text = format!("mount blob {digest} from {from} to {repository}");
        let action = Action::new(Phase::Mount(*digest), repository, text);
        let mut url = self.transport.url(repository, "blobs/uploads/", &action)?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from.path());
        let access = Access::push(repository).and_pull(from);
        let request = Request::new(action, Method::POST, url, access);
        let response = self.transport.send_once(&request).await?;
        match response.status() {
            201 => Ok(Mount::Done(from.clone())),
            _ => Ok(Mount::Session(response.location()?)),
        }
    }

    async fn begin(&self, repository: &Repository, digest: &Digest) -> Result<Url, Error> {
        let text = format!("start the upload of blob {digest} to {repository}");
        let action = Action::new(Phase::StartUpload(*digest), repository, text);
        let url = self.transport.url(repository, "blobs/uploads/", &action)?;
        let access = Access::push(repository);
        let request = Request::new(action, Method::POST, url, access);
        match self.transport.send_once(&request).await {
            Err(error) if error.is_not_found() => {
                if !self.transport.create_repository(&request).await? {
                    return Err(error);
                }
                self.transport.send_once(&request).await?.location()
            }
            answer => answer?.location(),
        }
    }

    async fn put(
        &self,
        repository: &Repository,
        upload: &Upload<'_>,
        mut session: Url,
    ) -> Result<(), Error> {
        let digest = upload.descriptor.digest;
        let text = format!("push blob {digest} to {repository}");
        let action = Action::new(Phase::Upload(digest), repository, text);
        session
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let access = Access::push(repository);
        let request = Request::new(action.clone(), Method::PUT, session, access)
            .header(CONTENT_TYPE, OCTETS)
            .body(Body::Upload(upload));
        let response = self.transport.send_once(&request).await?;
        match content_digest(&response, &action)? {
            Some(actual) if actual != digest => {
                Err(Error::digest_mismatch(&action, digest, actual))
            }
            _ => Ok(()),
        }
    }

    /// Gives a session back that is not needed. Registries drop it anyway some day,
    /// so a failure is no matter.
    async fn cancel(&self, repository: &Repository, digest: &Digest, session: Url) {
        let text = format!("cancel an upload to {repository}");
        let action = Action::new(Phase::Mount(*digest), repository, text);
        let access = Access::push(repository);
        let request = Request::new(action, Method::DELETE, session, access);
        if let Err(error) = self.transport.send_once(&request).await {
            tracing::debug!(%error, "an unused upload session stays");
        }
    }
}

enum Mount {
    Done(Repository),
    Session(Url),
    None,
}

/// A blob on its way.
pub(crate) struct Upload<'a> {
    source: &'a BlobSource,
    descriptor: &'a Descriptor,
    progress: &'a Progress,
}

impl Upload<'_> {
    /// Gives the number of bytes that the body has.
    pub(crate) fn size(&self) -> u64 {
        self.descriptor.size
    }

    /// Makes the body of one attempt; its movement is noted in `activity`.
    pub(crate) fn body(
        &self,
        action: &Action,
        activity: &Activity,
    ) -> Result<reqwest::Body, Error> {
        let body = match self.source {
            BlobSource::Bytes(bytes) => {
                self.check_size(action, bytes.len() as u64)?;
                self.watched(pieces(bytes.clone()), activity)
            }
            BlobSource::File(path) => {
                let at_path = |source| Error::File {
                    action: action.clone(),
                    path: path.clone(),
                    source,
                };
                let file = File::open(path).map_err(at_path)?;
                self.check_size(action, file.metadata().map_err(at_path)?.len())?;
                self.watched(crate::stream::read(file, 0, self.size()), activity)
            }
        };
        Ok(body)
    }

    fn watched(
        &self,
        stream: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        activity: &Activity,
    ) -> reqwest::Body {
        let (activity, progress) = (activity.clone(), self.progress.clone());
        let mut transfer = self.transfer(TransferState::Moving);
        reqwest::Body::wrap_stream(stream.inspect(move |piece| {
            if let Ok(piece) = piece {
                transfer.current += piece.len() as u64;
                activity.touch();
                progress.report(transfer);
            }
        }))
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

    fn report_outcome(&self, outcome: &BlobOutcome) {
        let state = match outcome {
            BlobOutcome::Exists => TransferState::Exists,
            BlobOutcome::Mounted(_) => TransferState::Mounted,
            BlobOutcome::Uploaded => TransferState::Done,
        };
        let mut transfer = self.transfer(state);
        transfer.current = transfer.total;
        self.progress.report(transfer);
    }

    fn transfer(&self, state: TransferState) -> Transfer {
        Transfer {
            digest: self.descriptor.digest,
            current: 0,
            total: self.size(),
            state,
        }
    }
}

/// Cuts bytes into pieces without copying them, so that progress can be seen.
fn pieces(bytes: Bytes) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let offsets = (0..bytes.len()).step_by(PIECE);
    stream::iter(offsets.map(move |begin| {
        let end = (begin + PIECE).min(bytes.len());
        Ok(bytes.slice(begin..end))
    }))
}
