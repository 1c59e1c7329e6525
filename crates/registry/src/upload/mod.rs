//! Uploading one blob (distribution-spec, "Pushing blobs"): is it there? can it be
//! mounted? else a session and one streaming PUT, which local registries take two to
//! three times as fast as chunks. Where that fails, chunks of a size that passes, and a
//! session that is resumed (`transfer`). A blob that is still being made goes in chunks too
//! (`growing`).

mod flow;
mod growing;
mod pace;
mod part;
mod session;
mod transfer;

use reqwest::Method;

use crate::action::{Action, Phase};
use crate::auth::Access;
use crate::progress::Progress;
use crate::transport::Request;
use crate::{Client, Descriptor, Digest, Error, Repository};

pub(crate) use flow::Brake;
pub use growing::{Growing, Growth, growing};
pub(crate) use pace::Paces;
pub use part::{BlobSource, RemoteBlob};
pub(crate) use part::{Part, Upload, body_of};
use session::Session;
use transfer::Transfer;

/// Repositories from which mounting is tried.
const MAX_MOUNTS: usize = 3;

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
    ///
    /// A request that is too large for the registry or a proxy before it (413), that
    /// takes too long (408, 504) or whose connection breaks is followed by chunks, and
    /// an upload goes on behind the bytes that the registry says it has
    /// (distribution-spec, "Pushing a blob in chunks"). The client remembers for each
    /// registry what it takes.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with 413 where the smallest chunk (256 KiB) is too large too,
    /// [`Error::NoChunks`] where chunks are needed and not taken, [`Error::GaveUp`]
    /// when patience ends, and whatever else cannot pass.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        source: &BlobSource,
        mount_from: &[Repository],
        progress: &Progress,
    ) -> Result<BlobOutcome, Error> {
        let upload = Upload::new(source, descriptor, progress);
        Transfer::new(self, repository, upload, mount_from)
            .run()
            .await
    }

    /// Opens a session, unless a mount makes it needless.
    async fn open(
        &self,
        repository: &Repository,
        digest: &Digest,
        mount_from: &[Repository],
    ) -> Result<Mount, Error> {
        match self.try_mounts(repository, digest, mount_from).await? {
            Some(mount) => Ok(mount),
            None => Ok(Mount::Session(self.begin(repository, digest).await?)),
        }
    }

    async fn try_mounts(
        &self,
        repository: &Repository,
        digest: &Digest,
        mount_from: &[Repository],
    ) -> Result<Option<Mount>, Error> {
        let mut session = None;
        let usable = |from: &&Repository| {
            from.registry() == repository.registry() && from.path() != repository.path()
        };
        for from in mount_from.iter().filter(usable).take(MAX_MOUNTS) {
            if let Some(Mount::Session(unused)) = session {
                self.cancel(repository, Phase::Mount(*digest), unused).await;
            }
            session = match self.mount(repository, digest, from).await {
                Ok(Mount::Done(from)) => return Ok(Some(Mount::Done(from))),
                Ok(other) => Some(other),
                // No right to read there, or no mounting here: the upload still works.
                Err(error) if error.status().is_some_and(|s| (400..500).contains(&s)) => {
                    tracing::debug!(%error, "a blob cannot be mounted");
                    None
                }
                Err(error) if error.is_denied() => None,
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
            _ => Ok(Mount::Session(Session::new(&response)?)),
        }
    }
}

/// What came of asking for a mount or a session.
enum Mount {
    Done(Repository),
    Session(Session),
}
