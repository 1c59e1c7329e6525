//! What was being done when something failed: an [`Action`] for the text of an error,
//! a [`Phase`] for whoever words it differently.

use std::fmt;
use std::sync::Arc;

use crate::{Digest, Repository};

/// What was being done to which thing, such as `push blob sha256:… to host/app`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action(Arc<Parts>);

#[derive(Debug, PartialEq, Eq)]
struct Parts {
    text: String,
    phase: Phase,
    repository: Repository,
}

impl Action {
    pub(crate) fn new(phase: Phase, repository: &Repository, text: impl Into<String>) -> Self {
        Self(Arc::new(Parts {
            text: text.into(),
            phase,
            repository: repository.clone(),
        }))
    }

    /// Gives the phase of a pull or push that the action belongs to.
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// Gives the repository that was pulled from or pushed to.
    pub fn repository(&self) -> &Repository {
        &self.0.repository
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// How far a pull or push has come; its text goes on after "failed while".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Proving who we are, whatever for.
    Login,
    /// Asking what a name stands for; a push begins with it.
    Resolve,
    /// Asking whether the repository has a blob.
    FindBlob(Digest),
    /// Asking the registry to take a blob over from another repository.
    Mount(Digest),
    /// Opening an upload session, or making the repository for it.
    StartUpload(Digest),
    /// Sending the bytes of a blob.
    Upload(Digest),
    /// Sending the bytes of a blob whose end is not known yet.
    UploadAhead,
    /// Sending the manifest, which ends a push.
    PushManifest,
    /// Reading a manifest.
    PullManifest,
    /// Reading a blob.
    PullBlob(Digest),
    /// Listing tags.
    ListTags,
    /// Deleting a tag, a manifest or a blob.
    Delete,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login => f.write_str("logging in"),
            Self::Resolve => f.write_str("looking the name up"),
            Self::FindBlob(digest) => write!(f, "looking for blob {digest}"),
            Self::Mount(digest) => write!(f, "mounting blob {digest}"),
            Self::StartUpload(digest) => write!(f, "starting the upload of blob {digest}"),
            Self::Upload(digest) => write!(f, "uploading blob {digest}"),
            Self::UploadAhead => f.write_str("uploading a blob that is being made"),
            Self::PushManifest => f.write_str("sending the manifest"),
            Self::PullManifest => f.write_str("reading the manifest"),
            Self::PullBlob(digest) => write!(f, "reading blob {digest}"),
            Self::ListTags => f.write_str("listing tags"),
            Self::Delete => f.write_str("deleting"),
        }
    }
}
