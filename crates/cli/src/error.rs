//! What a command can fail with, and its exit status: 1 where the work failed, 2 where
//! the command line was wrong.

use std::fmt::Write as _;

use ocibuild::error::{Error as BuildError, ErrorKind};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// An image of the store.
    #[error(transparent)]
    Images(#[from] ocibuild::images::Error),
    /// Anything else that was being done.
    #[error("{doing}")]
    Failed {
        /// What.
        doing: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Wraps a cause.
    pub(crate) fn failed(
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed {
            doing: doing.into(),
            source: source.into(),
        }
    }

    /// Gives the exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Build(error) if error.kind() == ErrorKind::Cancelled => 130,
            Self::Build(_) | Self::Images(_) | Self::Failed { .. } => 1,
        }
    }

    /// Gives the whole text: the error and its causes, the excerpt of the Dockerfile,
    /// the last lines of output, what to do.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {self}\n");
        causes(self, &mut text);
        if let Self::Build(error) = self {
            output(error, &mut text);
            excerpt(error, &mut text);
            if let Some(hint) = error.hint() {
                let _ = writeln!(text, "hint: {hint}");
            }
        }
        text
    }
}

fn causes(error: &dyn std::error::Error, text: &mut String) {
    let mut shown = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // An error that says what its cause says does not say it twice.
        if !shown.ends_with(&message) {
            let _ = writeln!(text, "  caused by: {message}");
        }
        shown = message;
        cause = error.source();
    }
}

fn output(error: &BuildError, text: &mut String) {
    if error.output().is_empty() {
        return;
    }
    text.push_str("------\n");
    for line in error.output() {
        let _ = writeln!(text, " > {line}");
    }
    text.push_str("------\n");
}

fn excerpt(error: &BuildError, text: &mut String) {
    let Some(location) = error.location() else {
        return;
    };
    let _ = writeln!(text, "{location}");
    text.push_str("--------------------\n");
    for (number, marked, line) in location.excerpt(2) {
        let mark = if marked { ">>>" } else { "   " };
        let _ = writeln!(text, "{number:4} | {mark} {line}");
    }
    text.push_str("--------------------\n");
}
