//! Which files of a copy get layers of their own: model weights beside code, so that an
//! edit of the code moves none of them.

use crate::context::ignore::pattern;
use crate::layer::{Entry, Kind};

/// How the files of a COPY or ADD become layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerPolicy {
    /// One layer for each instruction.
    #[default]
    Whole,
    /// Large files have layers of their own, uncompressed; the root file system is the same.
    Apart(Apart),
}

/// Which files have layers of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// Those of at least so many bytes.
    pub min_size: u64,
    /// Those whose name matches one of these patterns (Go's `filepath.Match`).
    pub names: Vec<String>,
}

impl Default for Apart {
    /// Files from 64 MiB on.
    fn default() -> Self {
        Self {
            min_size: 64 << 20,
            names: Vec::new(),
        }
    }
}

impl LayerPolicy {
    /// Tells whether a file gets a layer of its own.
    pub(crate) fn is_apart(&self, entry: &Entry) -> bool {
        let (Self::Apart(apart), Kind::File(content)) = (self, &entry.kind) else {
            return false;
        };
        let name = String::from_utf8_lossy(entry.path.file_name()).into_owned();
        let mut patterns = apart.names.iter();
        content.size >= apart.min_size
            || patterns.any(|pattern| pattern::matches(pattern, &name).unwrap_or(false))
    }

    /// Gives the first pattern that is none.
    pub(crate) fn wrong_pattern(&self) -> Option<&str> {
        let names = match self {
            Self::Whole => return None,
            Self::Apart(apart) => &apart.names,
        };
        let mut names = names.iter().map(String::as_str);
        names.find(|name| pattern::matches(name, "").is_err())
    }
}
