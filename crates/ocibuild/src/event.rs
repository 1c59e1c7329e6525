//! What a build tells while it runs. The same values feed the terminal, the
//! service's log and `--progress json`; a worker process sends them as JSON lines.

use std::sync::Arc;

use ocibuild_registry::Digest;
use serde::{Deserialize, Serialize};

/// Number of a step within one build, in the order in which steps were planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepId(pub u32);

/// The stream that a line of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What is happening to something that is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// Bytes are being moved.
    Moving,
    /// All bytes are where they should be.
    Done,
    /// It was there already, and nothing was moved.
    Exists,
    /// A registry took it over from another of its repositories, and nothing was moved.
    Mounted,
}

/// What happened. Durations are in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A step begins: loading a base, an instruction, exporting, pushing.
    StepStarted {
        /// The step.
        step: StepId,
        /// What is shown for it, such as `[stage 2/5] RUN make`.
        name: String,
    },
    /// One line that a step printed, without its line end.
    StepLog {
        /// The step.
        step: StepId,
        /// Where it was printed.
        stream: Stream,
        /// The line; bytes that are not UTF-8 are replaced.
        line: String,
    },
    /// How far a transfer of a step has come.
    StepProgress {
        /// The step.
        step: StepId,
        /// What is moved, such as a shortened digest.
        item: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all, 0 where that is not known.
        total: u64,
        /// What is happening to it.
        state: TransferState,
    },
    /// A step is done.
    StepDone {
        /// The step.
        step: StepId,
        /// Its result was there already and nothing was run.
        cached: bool,
        /// How long it took.
        millis: u64,
        /// The layer that it made, if it made one.
        layer: Option<LayerSummary>,
    },
    /// The result of a step is not known, and why; told where that is asked for.
    StepMissed {
        /// The step.
        step: StepId,
        /// What differs from the nearest step that is known.
        why: String,
    },
    /// A step failed; the build's error says more.
    StepFailed {
        /// The step.
        step: StepId,
        /// One line of reason.
        error: String,
        /// How long it took.
        millis: u64,
    },
    /// The context of a build was taken from Git at this commit.
    Commit {
        /// The full commit id.
        id: String,
    },
    /// The Dockerfile that is built, as it was found or given.
    Dockerfile {
        /// Its path in the context, or what stands for one that was given as text.
        name: String,
        /// Its text.
        text: String,
    },
    /// Something that the user should know and that does not stop the build.
    Warning {
        /// The text, with its place where it has one.
        message: String,
    },
    /// A build check found something in the Dockerfile.
    Check(CheckWarning),
    /// A registry has confirmed this digest for this reference.
    Pushed {
        /// The name that was pushed.
        reference: String,
        /// The digest of its manifest.
        digest: Digest,
    },
}

/// What a build check found. Lines and columns count from one, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckWarning {
    /// The name of the rule, such as `JSONArgsRecommended`.
    pub rule: String,
    /// What is wrong, in BuildKit's words.
    pub message: String,
    /// Where the rule is explained.
    pub url: Option<String>,
    /// The name of the Dockerfile.
    pub file: String,
    /// The first line of the instruction.
    pub line: usize,
    /// The last line of the instruction.
    pub end_line: usize,
    /// The line of the part that is meant.
    pub at_line: usize,
    /// The column at which that part begins.
    pub at_column: usize,
    /// How many characters of that line are meant, at least one.
    pub at_width: usize,
    /// The text of that line.
    pub text: String,
}

/// Place, rule and message on one line: `Dockerfile:3: JSONArgsRecommended: …`.
impl std::fmt::Display for CheckWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, .. } = self;
        write!(f, "{file}:{line}: {}: {}", self.rule, self.message)
    }
}

/// The size and digests of a layer that a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSummary {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob.
    pub size: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// Where events go; called from any thread, so it must be quick.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(Event) + Send + Sync>);

impl EventSink {
    /// Wraps a function.
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Gives a sink that drops everything.
    pub fn none() -> Self {
        Self::new(drop)
    }

    /// Sends one event.
    pub fn emit(&self, event: Event) {
        (self.0)(event);
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}
