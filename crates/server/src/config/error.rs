//! What is wrong with the configuration: everything at once, and no secret in it.

use std::fmt;
use std::path::PathBuf;

use ocibuild_registry::server::InvalidAccounts;

use super::settings::{Secrecy, Setting};
use super::values::Source;

/// The configuration cannot be used.
#[derive(Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One thing that is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A value cannot be used.
    #[error("{name} must be {expected} ({source_of_value}{})", shown(.value.as_deref()))]
    Value {
        /// Name of the variable.
        name: &'static str,
        /// What its value must be.
        expected: String,
        /// Where the value came from.
        source_of_value: Source,
        /// The value, where it may be shown.
        value: Option<String>,
    },
    /// A variable looks like one of ours and is none.
    #[error("{} is no setting of ocibuild{}", name.escape_debug(), suggestion(*.similar))]
    Unknown {
        /// Name of the variable.
        name: String,
        /// What was probably meant.
        similar: Option<&'static str>,
    },
    /// A file that a setting names cannot be read.
    #[error("{name}: cannot read {}: {source}", path.display())]
    File {
        /// Name of the variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of accounts cannot be used.
    #[error("{name}: {}: {source}", path.display())]
    Accounts {
        /// Name of the variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: InvalidAccounts,
    },
}

impl ConfigError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// Gives everything that is wrong.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [problem] = &self.problems[..] {
            return write!(f, "{problem}");
        }
        write!(f, "{} settings cannot be used:", self.problems.len())?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl Problem {
    pub(super) fn value(setting: &Setting, source: Source, text: &str) -> Self {
        Self::Value {
            name: setting.name,
            expected: setting.kind.expected(),
            source_of_value: source,
            value: may_be_shown(setting, text).then(|| text.chars().take(LONGEST).collect()),
        }
    }

    /// Gives the name of the variable.
    pub fn name(&self) -> &str {
        match self {
            Self::Value { name, .. } | Self::File { name, .. } | Self::Accounts { name, .. } => {
                name
            }
            Self::Unknown { name, .. } => name,
        }
    }
}

/// How much of a value is shown.
const LONGEST: usize = 100;

/// A URL that stands where none should may hold a password.
fn may_be_shown(setting: &Setting, text: &str) -> bool {
    setting.secrecy == Secrecy::Open && !text.contains('@')
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!(": {value:?}"))
}

fn suggestion(similar: Option<&str>) -> String {
    match similar {
        Some(name) => format!("; did you mean {name}?"),
        None => "; `ocibuild serve --print-config` lists them".to_owned(),
    }
}
