//! `RUN --mount`: a comma-separated list of options becomes a typed mount.
//!
//! Fields are read as one CSV record and each value is expanded on its own, so a
//! value with commas cannot add options. Options may come in any order.

mod options;

use thiserror::Error;

use self::options::Options;
pub use self::options::split_csv;
use super::words::WordError;

/// Why a mount cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MountError {
    /// The text is no CSV record.
    #[error("options {0:?} have quotes in the wrong place")]
    Quotes(String),
    /// A value cannot be expanded.
    #[error("expanding the value of {key:?}")]
    Expand {
        /// The option.
        key: String,
        /// The reason.
        source: WordError,
    },
    /// An option that needs a value has none.
    #[error("option {0:?} needs a value")]
    NoValue(String),
    /// The option does not exist.
    #[error("unknown option {key:?}{}", hint(.suggestion))]
    UnknownKey {
        /// The option.
        key: String,
        /// The option that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// The option does not fit the type of the mount.
    #[error("option {key:?} does not fit a mount of type {kind}")]
    Misplaced {
        /// The option.
        key: String,
        /// The type.
        kind: &'static str,
    },
    /// The value does not fit the option.
    #[error("option {key:?} cannot be {value:?}{}", hint(.suggestion))]
    Value {
        /// The option.
        key: String,
        /// The value.
        value: String,
        /// The value that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// The stage or image of a mount cannot depend on variables.
    #[error("option \"from\" cannot hold variables; name a stage after the image instead")]
    VariableFrom,
    /// A secret has neither a name nor a place.
    #[error("a secret needs an id or a target")]
    NamelessSecret,
    /// A secret has two names.
    #[error("a secret takes an id or a source, not both")]
    SecretNamedTwice,
}

fn hint(suggestion: &Option<&'static str>) -> String {
    suggestion
        .map(|word| format!(", did you mean {word:?}?"))
        .unwrap_or_default()
}

/// What is shown to one command at some path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Files of the context, a stage or an image.
    Bind(BindMount),
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// An empty directory in memory.
    Tmpfs(TmpfsMount),
    /// A secret, as a file, as a variable or both.
    Secret(SecretMount),
    /// The socket of an SSH agent.
    Ssh(SshMount),
}

/// Owner and mode of a mounted file or directory, where they are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileInfo {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
}

/// `type=bind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// The stage, image or named context; the build context without it.
    pub from: Option<String>,
    /// The path there, the root without it.
    pub source: Option<String>,
    /// The path in the command's root, relative to the working directory.
    pub target: String,
    /// Writes fail; otherwise they are thrown away after the command.
    pub read_only: bool,
}

/// `type=cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMount {
    /// The identity; the cleaned target where none is given.
    pub id: String,
    /// The path in the command's root, relative to the working directory.
    pub target: String,
    /// Who may use the directory at the same time.
    pub sharing: Sharing,
    /// The stage, image or named context that fills a new cache.
    pub from: Option<String>,
    /// The path there, the root without it.
    pub source: Option<String>,
    /// Writes fail.
    pub read_only: bool,
    /// Owner and mode of a new cache.
    pub file: FileInfo,
}

/// `type=tmpfs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TmpfsMount {
    /// The path in the command's root, relative to the working directory.
    pub target: String,
    /// The most bytes that it may hold.
    pub size: Option<u64>,
}

/// `type=secret`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretMount {
    /// The name of the secret.
    pub id: String,
    /// The path of its file, if there is to be one.
    pub target: Option<String>,
    /// The variable that holds it, if there is to be one.
    pub env: Option<String>,
    /// The build fails where the secret is not known.
    pub required: bool,
    /// Owner and mode of the file.
    pub file: FileInfo,
}

/// `type=ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshMount {
    /// The name of the agent, `default` where none is given.
    pub id: String,
    /// The path of the socket, if it is given.
    pub target: Option<String>,
    /// The build fails where the agent is not known.
    pub required: bool,
    /// Owner and mode of the socket.
    pub file: FileInfo,
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// Nobody: another command gets another directory.
    Private,
    /// Nobody: another command waits.
    Locked,
}

/// Expands the value of one option.
pub type Expand<'a> = dyn Fn(&str) -> Result<String, WordError> + 'a;

/// Reads a mount as it is written, without expanding variables.
pub fn parse_mount(text: &str) -> Result<Mount, MountError> {
    Mount::parse(text, &|value| Ok(value.to_owned()))
}

/// Checks what can be known of a mount before variables have values.
pub(super) fn check(text: &str) -> Result<(), MountError> {
    let fields = split_csv(text).ok_or_else(|| MountError::Quotes(text.to_owned()))?;
    let is_variable = |field: &String| {
        let from = field
            .split_once('=')
            .filter(|(key, _)| key.eq_ignore_ascii_case("from"));
        from.and_then(|(_, value)| value.split_once('$'))
            .is_some_and(|(_, name)| !name.is_empty())
    };
    if fields.iter().any(is_variable) {
        Err(MountError::VariableFrom)
    } else {
        Ok(())
    }
}

/// Gives the stage, image or named context that a mount needs, before its variables have
/// values; it holds none itself.
pub fn from_of(text: &str) -> Option<String> {
    let fields = split_csv(text)?;
    let named = fields.iter().rev().find_map(|field| {
        let (key, value) = field.split_once('=')?;
        key.eq_ignore_ascii_case("from").then_some(value)
    });
    named.filter(|name| !name.is_empty()).map(str::to_owned)
}

impl Mount {
    /// Reads a mount and expands the value of each option.
    pub fn parse(text: &str, expand: &Expand<'_>) -> Result<Self, MountError> {
        check(text)?;
        let mut options = Options::default();
        for field in split_csv(text).unwrap_or_default() {
            options.set(&field, expand)?;
        }
        options.finish()
    }

    /// Gives the path where the command sees it; a secret may be a variable only.
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::Bind(mount) => Some(&mount.target),
            Self::Cache(mount) => Some(&mount.target),
            Self::Tmpfs(mount) => Some(&mount.target),
            Self::Secret(mount) => mount.target.as_deref(),
            Self::Ssh(mount) => mount.target.as_deref(),
        }
    }

    /// Gives the stage, image or named context that the mount needs.
    pub fn from(&self) -> Option<&str> {
        match self {
            Self::Bind(mount) => mount.from.as_deref(),
            Self::Cache(mount) => mount.from.as_deref(),
            Self::Tmpfs(_) | Self::Secret(_) | Self::Ssh(_) => None,
        }
    }
}
