//! Why a file could not be downloaded. URLs are shown without user information, query and
//! fragment: no text here holds a password.

use std::io;

use crate::content;
use crate::git::{Excess, Forbidden};
use crate::registry::Digest;

/// Why a file could not be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The text is no URL of a file.
    #[error("invalid URL {url:?}: {reason}")]
    InvalidUrl {
        /// The begin of it.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The policy of the build does not let the file come from there.
    #[error("{url} is refused: {reason}")]
    Forbidden {
        /// The file, or where it redirects to.
        url: String,
        /// What the policy says.
        reason: Forbidden,
    },
    /// A secret is given for the server, and everybody on the way could read it.
    #[error("{url} is not asked for: its login would travel unencrypted; use https")]
    InsecureLogin {
        /// The file.
        url: String,
    },
    /// The secret that is given for the server cannot stand in a request.
    #[error("{url}: the secret that holds its login has characters that HTTP cannot carry")]
    Login {
        /// The file.
        url: String,
    },
    /// The file is larger or slower than the policy of the build allows.
    #[error("{url} is refused: {excess}")]
    TooMuch {
        /// The file.
        url: String,
        /// The limit that was reached.
        excess: Excess,
    },
    /// No connection.
    #[error("cannot reach {host}")]
    Unreachable {
        /// The host and port.
        host: String,
        /// What the connection said.
        source: reqwest::Error,
    },
    /// The server answered with something else than the file.
    #[error("{url} answered with HTTP status {status}")]
    Status {
        /// The file.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// A redirect that must not be followed.
    #[error("{url} redirects to {target}: {reason}")]
    Redirect {
        /// The file.
        url: String,
        /// Where the server points to.
        target: String,
        /// Why this is the end.
        reason: &'static str,
    },
    /// The connection broke in the middle of the file.
    #[error("cannot read {url}")]
    Broken {
        /// The file.
        url: String,
        /// What the connection said.
        source: io::Error,
    },
    /// The file is not the one that was meant.
    #[error("{url} has the digest {found}, --checksum says {expected}")]
    Checksum {
        /// The file.
        url: String,
        /// What the Dockerfile says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The file could not be written.
    #[error("cannot write the download")]
    Write(#[source] io::Error),
    /// TLS could not be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The build was ended from outside.
    #[error("the download was cancelled")]
    Cancelled,
    /// The store.
    #[error(transparent)]
    Store(#[from] content::Error),
}

impl DownloadError {
    /// Tells whether the Dockerfile asks for what it may not have.
    pub fn is_users(&self) -> bool {
        matches!(
            self,
            Self::InvalidUrl { .. }
                | Self::Forbidden { .. }
                | Self::InsecureLogin { .. }
                | Self::Login { .. }
                | Self::TooMuch { .. }
                | Self::Checksum { .. }
        )
    }

    /// Tells whether trying again may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}
