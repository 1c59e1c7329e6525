//! The error of a build: what failed, where in the Dockerfile, and what kind of failure
//! it is. The kind decides exit codes and HTTP statuses; the location lets a caller show
//! the excerpt.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::executor::Exit;
use crate::{content, context, copy, executor, graph, layer, output, secret, snapshot, source};

/// What kind of failure an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for cannot be built: the Dockerfile, the context, an option.
    User,
    /// A command of a RUN step failed.
    Command,
    /// A command of a RUN step was killed because memory ran out.
    OutOfMemory,
    /// A registry or a repository refused or did not answer.
    Registry,
    /// The machine does not let RUN steps run.
    Sandbox,
    /// The build was ended from outside.
    Cancelled,
    /// The store may not take as much as the build needs.
    NoRoom,
    /// The machine failed us: disk, memory, a defect.
    Internal,
}

/// Lines of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file's name as the user knows it.
    pub file: String,
    /// The lines of the instruction, counted from 1.
    pub lines: RangeInclusive<u32>,
    /// The text of the file.
    pub text: Arc<str>,
}

impl Location {
    /// Gives up to `around` lines before and after the instruction, each with its number
    /// and whether it belongs to the instruction.
    pub fn excerpt(&self, around: u32) -> Vec<(u32, bool, &str)> {
        let first = self.lines.start().saturating_sub(around).max(1);
        let last = self.lines.end().saturating_add(around);
        (1..)
            .zip(self.text.lines())
            .filter(|(number, _)| (first..=last).contains(number))
            .map(|(number, line)| (number, self.lines.contains(&number), line))
            .collect()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.lines.start())
    }
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An instruction of the Dockerfile failed.
    #[error("{location}: {source}")]
    Instruction {
        /// Which.
        location: Location,
        /// Why.
        source: Box<Error>,
    },
    /// The Dockerfile cannot be read as one.
    #[error("{location}: {message}")]
    Parse {
        /// Where.
        location: Location,
        /// What is wrong.
        message: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// The Dockerfile asks that warnings of its checks stop the build, and has some.
    #[error("{location}: lint violation found for rules: {rules}")]
    Check {
        /// The first of them.
        location: Location,
        /// The rules, each once.
        rules: String,
    },
    /// The Dockerfile is not there.
    #[error("the Dockerfile {0:?} is not there")]
    NoDockerfile(String),
    /// The Dockerfile cannot be read.
    #[error("read the Dockerfile {path:?}")]
    ReadDockerfile {
        /// Its name.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// An instruction, or how stages hang together.
    #[error(transparent)]
    Graph(#[from] graph::Error),
    /// The Dockerfile asks for something that cannot be.
    #[error("{message}")]
    Invalid {
        /// What.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A command ended with a failure.
    #[error("process {command:?} {}", describe(exit))]
    Command {
        /// What was run.
        command: String,
        /// How it ended.
        exit: Exit,
        /// The last lines that it printed.
        output: Vec<String>,
    },
    /// COPY or ADD.
    #[error(transparent)]
    Copy(#[from] copy::Error),
    /// An archive that ADD extracts.
    #[error("cannot extract the archive {name:?}")]
    Archive {
        /// Its name.
        name: String,
        /// Why.
        source: layer::Error,
    },
    /// The context.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// The artifact of a context.
    #[error("the artifact {reference} is no context")]
    Artifact {
        /// Its name.
        reference: String,
        /// Why.
        source: context::artifact::ArtifactError,
    },
    /// The repository of the context.
    #[cfg(feature = "git")]
    #[error(transparent)]
    Git(#[from] crate::git::GitError),
    /// A file that ADD downloads.
    #[cfg(feature = "git")]
    #[error(transparent)]
    Download(#[from] crate::download::DownloadError),
    /// A base image.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] content::Error),
    /// The store is full while something is being done.
    #[error("the store is full during {during}")]
    NoRoom {
        /// The steps that were being done.
        during: String,
        /// What is missing.
        source: Box<Error>,
    },
    /// The bytes of a layer.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// A root file system.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A secret that was given and cannot be had.
    #[error("the secret {id:?}")]
    Secret {
        /// Its name.
        id: String,
        /// Why.
        source: secret::Error,
    },
    /// An SSH agent that was given and cannot be reached.
    #[error("the SSH agent {id:?} at {path}")]
    Agent {
        /// Its name.
        id: String,
        /// Its socket.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] executor::Error),
    /// Work that was to be done with the ids of RUN steps.
    #[error("{name} a layer with the ids of RUN steps: {reason}")]
    Job {
        /// Which work.
        name: &'static str,
        /// Why it failed.
        reason: String,
    },
    /// RUN cannot run on this machine.
    #[error("no sandbox for RUN works here: {0}")]
    NoSandbox(String),
    /// The commands of a platform cannot run on this machine.
    #[error("RUN for {platform} cannot run on this machine, which is {host}: {missing}")]
    Foreign {
        /// Theirs.
        platform: String,
        /// The machine's.
        host: String,
        /// Why not.
        missing: executor::binfmt::Missing,
    },
    /// An output.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// A cache that had to be exported.
    #[error(transparent)]
    Cache(crate::cache::shared::Error),
    /// The HTTP client could not be made.
    #[error("set up the registry client")]
    Client(#[source] crate::registry::BuildError),
    /// The build was ended from outside.
    #[error("the build was cancelled")]
    Cancelled,
    /// A thread of the build ended without a result.
    #[error("a part of the build ended without a result: {0}")]
    Lost(String),
    /// An error that several stages share.
    #[error(transparent)]
    Shared(Arc<Error>),
}

fn describe(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("did not complete successfully: exit code: {code}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
        Exit::OutOfMemory => "was ended because memory ran out".to_owned(),
    }
}

impl Error {
    /// Makes an error about what the user wrote.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
            hint: None,
        }
    }

    /// Adds the place in the Dockerfile; the innermost place stays.
    pub(crate) fn at(self, location: &Location) -> Self {
        match self {
            Self::Instruction { .. }
            | Self::Parse { .. }
            | Self::Check { .. }
            | Self::Cancelled => self,
            // Another stage's error has its place; that of a base that several share has none.
            Self::Shared(error) if error.location().is_some() => Self::Shared(error),
            source => Self::Instruction {
                location: location.clone(),
                source: Box::new(source),
            },
        }
    }

    /// Gives what kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Instruction { source, .. } => source.kind(),
            Self::Shared(error) => error.kind(),
            Self::Command {
                exit: Exit::OutOfMemory,
                ..
            } => ErrorKind::OutOfMemory,
            Self::Command { .. } => ErrorKind::Command,
            Self::Source(source::Error::Registry { .. } | source::Error::Artifact { .. })
            | Self::Output(output::Error::Push { .. })
            | Self::Cache(_)
            | Self::Client(_) => ErrorKind::Registry,
            #[cfg(feature = "git")]
            Self::Git(error) if error.is_users() => ErrorKind::User,
            #[cfg(feature = "git")]
            Self::Git(_) => ErrorKind::Registry,
            #[cfg(feature = "git")]
            Self::Download(error) if error.is_users() => ErrorKind::User,
            #[cfg(feature = "git")]
            Self::Download(_) => ErrorKind::Registry,
            Self::Sandbox(error) if error.is_users() => ErrorKind::Command,
            Self::Sandbox(_) | Self::NoSandbox(_) | Self::Foreign { .. } => ErrorKind::Sandbox,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Layer(layer::Error::Unrepresentable { .. }) => ErrorKind::User,
            Self::NoRoom { .. } | Self::Store(content::Error::Full { .. }) => ErrorKind::NoRoom,
            Self::Store(_)
            | Self::Layer(_)
            | Self::Snapshot(_)
            | Self::Job { .. }
            | Self::Lost(_) => ErrorKind::Internal,
            _ => ErrorKind::User,
        }
    }

    /// Gives the place in the Dockerfile, where there is one.
    pub fn location(&self) -> Option<&Location> {
        match self {
            Self::Instruction { location, .. }
            | Self::Parse { location, .. }
            | Self::Check { location, .. } => Some(location),
            Self::Shared(error) => error.location(),
            _ => None,
        }
    }

    /// Gives what to do about it, where we know.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Instruction { source, .. } => source.hint(),
            Self::Shared(error) => error.hint(),
            Self::Parse { hint, .. } | Self::Invalid { hint, .. } => hint.as_deref(),
            Self::Graph(error) => error.hint(),
            Self::Artifact { source, .. } => source.hint(),
            Self::Check { .. } => {
                Some("repair what the warnings say, or take error=true out of # check=")
            }
            Self::Foreign { .. } => Some(
                "register an emulator with the flag F (the package qemu-user-static does), or run the command in a stage that is FROM --platform=$BUILDPLATFORM",
            ),
            Self::NoRoom { .. } | Self::Store(content::Error::Full { .. }) => {
                Some("see `ocibuild cache du`, and give the store more room or take something out")
            }
            Self::NoSandbox(_) => Some("run `ocibuild check-host` to see what this machine allows"),
            _ => None,
        }
    }

    /// Gives the last lines that a failed command printed.
    pub fn output(&self) -> &[String] {
        match self {
            Self::Instruction { source, .. } => source.output(),
            Self::Shared(error) => error.output(),
            Self::Command { output, .. } => output,
            _ => &[],
        }
    }
}
