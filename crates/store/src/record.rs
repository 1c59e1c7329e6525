//! What a build leaves behind while it runs: its log and its steps; pure values.
//!
//! A log is bytes; a place in it is an offset in bytes, the same from every replica.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is added to the record of a task at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Where the new part of the log begins: the length that it has in the table.
    pub offset: u64,
    /// The new part of the log.
    pub log: Vec<u8>,
    /// Steps that are new or have changed.
    pub steps: Vec<Step>,
    /// The commit that is built, once it is known.
    pub commit: Option<String>,
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its number within the build.
    pub number: u32,
    /// What is shown for it, such as `[stage 2/5] RUN make`.
    pub name: String,
    /// How it stands.
    pub state: StepState,
    /// When it began, in milliseconds since the build did.
    pub begin_millis: u64,
    /// How long it took, in milliseconds; none while it runs.
    pub millis: Option<u64>,
    /// Digest of the layer that it made.
    pub layer: Option<String>,
    /// Size of that layer, in bytes.
    pub layer_size: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// It is being carried out.
    Running,
    /// It was carried out.
    Done,
    /// Its result was there already.
    Cached,
    /// It failed.
    Failed,
}

impl StepState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Running, Self::Done, Self::Cached, Self::Failed];

    /// Gives the text that the table and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cached => "cached",
            Self::Failed => "failed",
        }
    }

    /// Reads the text that the table and the API use.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// How long a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogInfo {
    /// Its length in bytes.
    pub length: u64,
    /// The task is over: the log does not grow any more.
    pub ended: bool,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPart {
    /// The bytes from the offset that was asked for.
    pub data: Vec<u8>,
    /// How long the log is, and whether it can still grow.
    pub info: LogInfo,
}

/// How long logs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// How long after the end of their task.
    pub age: Duration,
    /// How many bytes of all logs together.
    pub total_bytes: u64,
}
