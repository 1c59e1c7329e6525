//! Why no access key was found. No text shows a part of a key or token.

use std::fmt;
use std::path::PathBuf;

use crate::auth::call::CallError;
use crate::error::is_certificate_error;

/// Where a key was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwsKeySource {
    /// Every place that there is.
    Chain,
    /// The files of profiles.
    Profile,
    /// A token of another identity, for which a role is given.
    WebIdentity,
    /// A role that is taken on with another key.
    Role,
    /// The credentials of a container (ECS, EKS Pod Identity).
    Container,
    /// The role of a machine, from its metadata service.
    Instance,
}

impl fmt::Display for AwsKeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "the default chain",
            Self::Profile => "the profile",
            Self::WebIdentity => "the web identity",
            Self::Role => "the role",
            Self::Container => "the credentials of the container",
            Self::Instance => "the role of the machine",
        })
    }
}

impl AwsKeySource {
    pub(super) fn failed(self, problem: AwsKeyProblem) -> AwsKeyError {
        AwsKeyError {
            source_of_key: self,
            problem,
        }
    }
}

/// A search for a key that failed.
#[derive(Debug, thiserror::Error)]
#[error("no access key from {source_of_key}")]
pub struct AwsKeyError {
    /// Where it was looked for.
    pub source_of_key: AwsKeySource,
    /// Why there is none.
    #[source]
    pub problem: AwsKeyProblem,
}

impl AwsKeyError {
    pub(crate) fn is_transient(&self) -> bool {
        match &self.problem {
            AwsKeyProblem::Call {
                source: CallError::Unreachable(source),
                ..
            } => !is_certificate_error(source),
            AwsKeyProblem::Call { .. } => true,
            AwsKeyProblem::Refused { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }
}

/// Why a source has no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AwsKeyProblem {
    /// Nothing is configured, and the machine has no role.
    #[error(
        "there are no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, no profile, no web identity, \
         no credentials of a container and no role of a machine"
    )]
    Nothing,
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The profile that was named is not there.
    #[error("there is no profile {name:?}")]
    NoProfile {
        /// Its name.
        name: String,
    },
    /// The profile cannot be used.
    #[error("the profile {name:?} cannot be used: {problem}")]
    Profile {
        /// Its name.
        name: String,
        /// Why.
        problem: &'static str,
    },
    /// An address that must not be told a token, or that is no address.
    #[error("the address of {host:?} must not be used: {problem}")]
    Address {
        /// What was configured, without its path.
        host: String,
        /// Why.
        problem: &'static str,
    },
    /// A setting cannot be sent.
    #[error("{what} has characters that cannot be sent")]
    Characters {
        /// Which.
        what: &'static str,
    },
    /// A service did not answer.
    #[error("{host} gave no answer")]
    Call {
        /// Who was asked.
        host: String,
        /// Why.
        source: CallError,
    },
    /// A service refused.
    #[error("{host} answered {status} {kind}")]
    Refused {
        /// Who was asked.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The name of the error; may be empty.
        kind: String,
    },
    /// An answer has no key.
    #[error("the answer of {host} has no access key")]
    Answer {
        /// Who was asked.
        host: String,
    },
}
