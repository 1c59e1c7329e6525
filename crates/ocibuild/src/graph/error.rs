//! What can be wrong with a Dockerfile that parses.

use crate::dockerfile::mount::MountError;
use crate::dockerfile::words::WordError;

use super::Entitlement;

/// Why a Dockerfile cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word cannot be expanded.
    #[error("cannot expand {word:?}")]
    Word {
        /// The word.
        word: String,
        /// Why.
        source: WordError,
    },
    /// Understood, and not done yet.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// A step asks for what its build has not been allowed.
    #[error("this step needs the entitlement {0}, which this build does not have")]
    NotEntitled(Entitlement),
    /// `FROM` names nothing.
    #[error("the base name {0:?} is empty once its arguments are expanded")]
    EmptyBase(String),
    /// A platform that is none.
    #[error("{0}")]
    Platform(String),
    /// `--platform` that comes to nothing.
    #[error("the platform {written:?} is empty once its arguments are expanded")]
    EmptyPlatform {
        /// As it was written.
        written: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// A name that is no image's.
    #[error("invalid image name {name:?}: {reason}")]
    Image {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The stage that was asked for is not there.
    #[error("target stage {0:?} could not be found")]
    NoTarget(String, Option<String>),
    /// A stage needs itself.
    #[error("circular dependency detected on stage {0:?}")]
    Cycle(String),
    /// A stage uses one that comes after it.
    #[error("stage {0:?} is used before it is defined")]
    LaterStage(String),
    /// `--from` with a number that no stage has.
    #[error("there is no stage {0}: stages are counted from 0")]
    StageNumber(String),
    /// `--from` with a variable.
    #[error("variable expansion is not supported for --from: {0:?}")]
    VariableFrom(String),
    /// A mount that cannot be read.
    #[error("RUN --mount={text}")]
    Mount {
        /// As it was written.
        text: String,
        /// Why.
        source: MountError,
    },
    /// A mount over the root, or without a place.
    #[error("RUN --mount={0}: the target is the root directory")]
    MountTarget(String),
    /// `EXPOSE` with something else than a port.
    #[error("invalid port {port:?}: {reason}")]
    Port {
        /// As it was written.
        port: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An instruction without what it needs.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Gives what to do about it, where we know.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NoTarget(_, hint) | Self::EmptyPlatform { hint, .. } => hint.as_deref(),
            Self::NotEntitled(Entitlement::SecurityInsecure) => Some(
                "allow it with --allow security.insecure, if the Dockerfile may have all rights of root",
            ),
            Self::NotEntitled(Entitlement::NetworkHost) => {
                Some("allow it with --allow network.host")
            }
            Self::LaterStage(_) => Some("move the stage that is used above the one that uses it"),
            Self::VariableFrom(_) => {
                Some("give the image a stage of its own: FROM ${IMAGE} AS name")
            }
            Self::MountTarget(_) => Some("name the place: target=/path"),
            _ => None,
        }
    }
}
