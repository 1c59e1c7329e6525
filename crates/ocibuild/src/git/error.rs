//! What can go wrong between a repository URL and a tree on disk. No text here
//! holds a password: URLs are shown without user information, queries and fragments.

use std::path::{Path, PathBuf};

use url::Url;

use super::limits::Excess;
use super::policy::Forbidden;

/// Why a Git source could not be read, or its tree could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// The text is not a URL that names a repository.
    #[error("invalid repository URL {url:?}: {reason}")]
    InvalidUrl {
        /// The URL without its secrets.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The URL names a transport that is not offered.
    #[error(
        "repository URL {url:?} is not supported: {}", unsupported(.transport)
    )]
    UnsupportedTransport {
        /// The URL without its secrets.
        url: String,
        /// The transport, such as `ssh`.
        transport: &'static str,
    },
    /// The connection over ssh failed.
    #[error("cannot read {url} over ssh: {said}")]
    Ssh {
        /// The repository.
        url: String,
        /// What `ssh` or the server said.
        said: String,
    },
    /// The name of the branch, tag or commit cannot be one.
    #[error("invalid branch, tag or commit {reference:?}")]
    InvalidReference {
        /// The name as given.
        reference: String,
    },
    /// A token would travel in clear text.
    #[error("refusing to send a token to {host} over plain http: use https")]
    InsecureToken {
        /// The host and port.
        host: String,
    },
    /// TLS could not be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// No connection, or it broke.
    #[error("cannot reach {host}")]
    Unreachable {
        /// The host and port.
        host: String,
        /// What the connection said.
        #[source]
        source: reqwest::Error,
    },
    /// The server answered with a status that only the server can explain.
    #[error("{url} answered with HTTP status {status}")]
    Status {
        /// The repository.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server does not let us in.
    #[error("{url} refused access (HTTP status {status}): {}", access_hint(*.token_sent))]
    AccessRefused {
        /// The repository.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Whether a token was sent.
        token_sent: bool,
    },
    /// The server knows no such repository.
    #[error("no repository at {url}")]
    RepositoryNotFound {
        /// The repository.
        url: String,
    },
    /// The server answered, and not as a Git server does.
    #[error("{url} is not a Git repository: its answer is not that of Git's smart HTTP protocol")]
    NotARepository {
        /// The repository.
        url: String,
    },
    /// A redirect that must not, or need not, be followed.
    #[error("{url} redirects to {target}: {reason}")]
    Redirect {
        /// The repository.
        url: String,
        /// Where the server points to.
        target: String,
        /// Why this is the end.
        reason: &'static str,
    },
    /// The policy of the build does not let the repository come from there.
    #[error("{url} is not allowed: {reason}")]
    Forbidden {
        /// The repository, or where it redirects to.
        url: String,
        /// What the policy says.
        reason: Forbidden,
    },
    /// The commit is not the one that was meant.
    #[error("the commit of {url} is {found}, not {expected}")]
    Checksum {
        /// The repository.
        url: String,
        /// The id that was asked for, or the begin of it.
        expected: String,
        /// The commit that came.
        found: String,
    },
    /// The repository is larger or slower than the policy of the build allows.
    #[error("{url} is refused: {excess}")]
    TooMuch {
        /// The repository.
        url: String,
        /// The limit that was reached.
        excess: Excess,
    },
    /// There is nothing in the repository.
    #[error("the repository {url} has no commits on its default branch")]
    NoCommits {
        /// The repository.
        url: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("no branch, tag or commit {reference:?} in {url}{}", near_names(.near))]
    ReferenceNotFound {
        /// The repository.
        url: String,
        /// The name that was asked for.
        reference: String,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// Several commits begin with what was asked for.
    #[error("{prefix:?} is the begin of more than one commit of {url}: {}", .commits.join(", "))]
    AmbiguousCommit {
        /// The repository.
        url: String,
        /// What was asked for.
        prefix: String,
        /// The commits.
        commits: Vec<String>,
    },
    /// The references could not be listed.
    #[error("cannot list the references of {url}")]
    ListReferences {
        /// The repository.
        url: String,
        /// What the protocol said.
        source: Box<gix::Error>,
    },
    /// The objects could not be fetched.
    #[error("cannot fetch from {url}")]
    Fetch {
        /// The repository.
        url: String,
        /// What the protocol said.
        source: Box<gix::Error>,
    },
    /// The fetched commit could not be read or written out.
    #[error("cannot check out {what} of {url}")]
    Checkout {
        /// The repository.
        url: String,
        /// The part that failed.
        what: String,
        /// What was wrong with it.
        source: Option<Box<gix::Error>>,
    },
    /// The subdirectory is not in the repository.
    #[error("no directory {subdir:?} in the repository")]
    SubdirNotFound {
        /// The subdirectory as given.
        subdir: String,
    },
    /// The subdirectory leads out of the repository.
    #[error("the subdirectory {subdir:?} leads out of the repository")]
    SubdirOutside {
        /// The subdirectory as given.
        subdir: String,
    },
    /// A submodule could not be fetched.
    #[error("submodule {path:?}")]
    Submodule {
        /// Where it stands in its repository.
        path: String,
        /// What went wrong.
        source: Box<GitError>,
    },
    /// A submodule is described in a way that cannot be followed.
    #[error("{reason}")]
    InvalidSubmodule {
        /// What is wrong.
        reason: String,
    },
    /// A file that is kept with Git LFS cannot be had.
    #[error("the file {path:?} is kept with Git LFS and cannot be had: {reason}")]
    Lfs {
        /// Where it stands in its repository.
        path: String,
        /// Why not.
        reason: &'static str,
        /// Whether trying again may help.
        is_transient: bool,
    },
    /// The destination must be ours alone.
    #[error("{} exists and is not an empty directory", path.display())]
    DestinationNotEmpty {
        /// The destination.
        path: PathBuf,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The store, in which mirrors are, failed.
    #[error(transparent)]
    Store(#[from] crate::content::Error),
    /// A file operation failed.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl GitError {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// Tells whether the policy of the build forbids the source or one of its submodules.
    pub fn is_forbidden(&self) -> bool {
        match self {
            Self::Forbidden { .. } => true,
            Self::Submodule { source, .. } => source.is_forbidden(),
            _ => false,
        }
    }

    /// Tells whether the Dockerfile or whoever builds asks for what cannot be or must not be.
    pub fn is_users(&self) -> bool {
        let is_wrong = matches!(
            self,
            Self::InvalidUrl { .. }
                | Self::UnsupportedTransport { .. }
                | Self::InvalidReference { .. }
                | Self::AmbiguousCommit { .. }
                | Self::Checksum { .. }
        );
        is_wrong || self.is_forbidden()
    }

    /// Tells whether objects could not be read that should be there.
    pub(super) fn is_unreadable(&self) -> bool {
        let source = match self {
            Self::Checkout { source, .. } => source.as_ref(),
            _ => None,
        };
        source.is_some()
    }

    /// Tells whether trying again may help: the network failed, or the server said that it is busy.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Ssh { said, .. } => !PERMANENT.iter().any(|text| said.contains(text)),
            Self::Lfs { is_transient, .. } => *is_transient,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            Self::ListReferences { source, .. } | Self::Fetch { source, .. } => {
                source.can_retry_lenient()
            }
            _ => false,
        }
    }
}

/// What `ssh` and servers behind it say when trying again does not help.
const PERMANENT: [&str; 9] = [
    "Host key verification failed",
    "host key is known",
    "Permission denied",
    "does not appear to be a git repository",
    "not found",
    "No such file or directory",
    "not exist",
    "access denied",
    "not allowed",
];

fn unsupported(transport: &str) -> String {
    match transport {
        "ssh" => "there is no ssh to reach it with; use https://".to_owned(),
        other => format!("{other} is not available, use https://, http:// or ssh://"),
    }
}

/// Shows a URL without anything that may be secret.
pub(crate) fn public_url(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot have user information at all.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Gives `host` or `host:port`.
pub(crate) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn access_hint(token_sent: bool) -> &'static str {
    if token_sent {
        "the token was not accepted, or it does not cover this repository"
    } else {
        "the repository is private or does not exist; give a token"
    }
}

fn near_names(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; it has {}", names.join(", ")),
    }
}
