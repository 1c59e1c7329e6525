//! What can go wrong while a layer is read, written, or its table loaded.

use std::io;

use super::{InvalidPath, TreePath};

/// A layer that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream of a layer, or its decompression, failed.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// The blob could not be written.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
    /// The content of a file that goes into a layer could not be read.
    #[error("cannot read {path} for the layer")]
    Content {
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that goes into a layer changed its size meanwhile.
    #[error("{path} changed while it was read: expected {expected} bytes, found {found}")]
    Changed {
        /// The file.
        path: TreePath,
        /// Its size when the entry began.
        expected: u64,
        /// How many bytes there were.
        found: Found,
    },
    /// An entry was added out of walk order or twice.
    #[error("{path} does not come after {last} in walk order")]
    Order {
        /// The entry.
        path: TreePath,
        /// The one before it.
        last: TreePath,
    },
    /// A tar cannot hold this entry.
    #[error("{path} cannot be written to a tar: {reason}")]
    Unrepresentable {
        /// The entry.
        path: TreePath,
        /// Why.
        reason: &'static str,
    },
    /// The writer is not usable after an earlier failure.
    #[error("the layer is incomplete because an earlier entry failed")]
    Incomplete,
    /// The tar breaks the format.
    #[error("malformed tar at byte {offset}: {reason}")]
    Malformed {
        /// Where the entry begins in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The tar has an entry of a kind that layers do not have.
    #[error("{path} is a tar entry of unsupported type {kind:?}")]
    Unsupported {
        /// The entry.
        path: String,
        /// The type, or the feature.
        kind: String,
    },
    /// An entry's name is not a place in the tree.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// Two entries cannot both be there.
    #[error("{path} conflicts with {other}: {reason}")]
    Conflict {
        /// The entry.
        path: TreePath,
        /// The other one.
        other: TreePath,
        /// Why.
        reason: &'static str,
    },
    /// The layer asks for more than it is allowed.
    #[error("the layer exceeds the limit of {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// A stored table of contents is damaged or of another version.
    #[error("the table of contents is damaged: {0}")]
    DamagedToc(&'static str),
}

impl Error {
    /// Gives back the error that passed through a content's [`io::Read`].
    pub(crate) fn from_content(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Read)
    }
}

/// How much of a changed file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It ended after so many bytes.
    Only(u64),
    /// It went on after the expected size.
    More,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Only(bytes) => bytes.fmt(f),
            Self::More => f.write_str("more"),
        }
    }
}
