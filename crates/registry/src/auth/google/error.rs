//! Why there is no login to Google. No text shows a part of a key or token.

use std::path::PathBuf;

use crate::auth::call::CallError;
use crate::error::is_certificate_error;

/// Settings that no login can be made of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidGoogleLogin {
    /// The key file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The key file lacks what it should have.
    #[error("the key for Google is not JSON with everything that its type needs")]
    Json,
    /// The key file is of a kind that is not known.
    #[error("the key for Google is of the type {kind:?}, which cannot be used")]
    Kind {
        /// Its type.
        kind: String,
    },
    /// The key file sends secrets where they must not go.
    #[error("the key for Google names a service that is not an https URL")]
    Url,
    /// The token of the other identity comes from a place that is not supported.
    #[error("the external account of Google must have its token in a file or url")]
    TokenSource,
}

/// A token that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("no access token from {host}")]
pub struct GoogleError {
    /// Who was asked.
    pub host: String,
    /// Why there is none.
    #[source]
    pub problem: GoogleProblem,
}

impl GoogleError {
    pub(crate) fn is_transient(&self) -> bool {
        match &self.problem {
            GoogleProblem::Call(CallError::Unreachable(source)) => !is_certificate_error(source),
            GoogleProblem::Call(_) => true,
            GoogleProblem::Refused { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }
}

/// Why no token could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoogleProblem {
    /// No answer came.
    #[error("is this a machine of Google, and is the service reachable?")]
    Call(#[source] CallError),
    /// The token of the other identity cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It refused.
    #[error("it answered {status} {kind}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The name of the error; may be empty.
        kind: String,
    },
    /// The answer has no token.
    #[error("its answer has no token")]
    Answer,
    /// The address or a header cannot be used.
    #[error("its address or what is sent to it is not valid")]
    Request,
}
