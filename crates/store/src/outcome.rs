//! How a build ended, and how somebody ends it; pure values.

use serde::{Deserialize, Serialize};

use crate::{TaskId, TaskState};

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// With an image or without.
    pub end: End,
    /// The commit that was built, if it was known by then.
    pub commit: Option<String>,
    /// The names that registries have confirmed, also where another one failed.
    pub pushed: Vec<Pushed>,
}

/// With an image or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Every registry has confirmed the image.
    Completed {
        /// Digest of the manifest.
        digest: String,
    },
    /// There is no image, or not everywhere.
    Failed {
        /// What kind of failure.
        code: FailureCode,
        /// Why, for people.
        reason: String,
    },
}

/// A name that a registry has confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// Registry, repository and tag.
    pub reference: String,
    /// Digest of the manifest.
    pub digest: String,
}

/// What kind of failure ended a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The Dockerfile, the context or a name is wrong.
    User,
    /// A command of the Dockerfile failed.
    Command,
    /// A registry or a repository did not play along.
    Registry,
    /// Commands cannot be run on the builder's machine.
    Sandbox,
    /// The build took more memory than it may, or than there is.
    OutOfMemory,
    /// The build took longer than it may.
    Timeout,
    /// Somebody ended it.
    Cancelled,
    /// The workers that built it disappeared, too often.
    Abandoned,
    /// The builder is wrong.
    Internal,
}

impl FailureCode {
    /// Every code.
    pub const ALL: [Self; 9] = [
        Self::User,
        Self::Command,
        Self::Registry,
        Self::Sandbox,
        Self::OutOfMemory,
        Self::Timeout,
        Self::Cancelled,
        Self::Abandoned,
        Self::Internal,
    ];

    /// Gives the text that the table and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Command => "command",
            Self::Registry => "registry",
            Self::Sandbox => "sandbox",
            Self::OutOfMemory => "out_of_memory",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Abandoned => "abandoned",
            Self::Internal => "internal",
        }
    }

    /// Reads the text that the table and the API use.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

impl Outcome {
    /// The state of a task that ended so.
    pub fn state(&self) -> TaskState {
        match self.end {
            End::Completed { .. } => TaskState::Completed,
            End::Failed { .. } => TaskState::Failed,
        }
    }

    /// The digest, where there is an image.
    pub fn digest(&self) -> Option<&str> {
        match &self.end {
            End::Completed { digest } => Some(digest),
            End::Failed { .. } => None,
        }
    }

    /// The code and the reason, where it failed.
    pub fn failure(&self) -> Option<(FailureCode, &str)> {
        match &self.end {
            End::Completed { .. } => None,
            End::Failed { code, reason } => Some((*code, reason)),
        }
    }
}

/// What became of the wish to end a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It waited, and has failed now.
    Ended,
    /// It runs; its owner will stop it.
    Requested,
    /// It was over already.
    TooLate,
    /// There is no such task.
    Unknown,
}

/// A running task that somebody wants to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelRequest {
    /// The task.
    pub task: TaskId,
    /// Why.
    pub reason: String,
}
