//! COPY and ADD: which files are meant, and where they come to stand. Pure over merged
//! views and lists of an archive's members; nothing is read or unpacked here.
//!
//! [`select()`] finds the sources (and is all that a cache key needs); [`place()`] lays
//! them over the root file system of the stage and gives the entries of the layer.
//! What the reference builder does in the odd cases is pinned by the tests.

mod apart;
mod archive;
mod mode;
mod owner;
mod place;
mod select;

use std::collections::BTreeMap;

use crate::layer::{Entry, TreePath};

pub use apart::{Apart, LayerPolicy};
pub use archive::{Archive, Member};
pub use mode::{Change, Mode};
pub use owner::{Owner, parse_owner};
pub use place::{Source, place, place_folder};
pub use select::{Choice, Selected, check_exclude, select, select_path};

/// What went wrong with a copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A source that is named does not exist.
    #[error("{path:?}: not found")]
    NotFound {
        /// As it was written.
        path: String,
    },
    /// A wildcard is not one.
    #[error("invalid pattern {0:?}")]
    Pattern(String),
    /// `--exclude`, or a source with `--parents`.
    #[error("invalid pattern: {0}")]
    Exclude(String),
    /// A directory would have to replace a file.
    #[error("cannot copy a directory to {0:?}: it is not a directory")]
    NotADirectory(String),
    /// A file would have to replace a directory.
    #[error("cannot replace the directory {0:?} with a file")]
    IsADirectory(String),
    /// A path of the destination leads through too many links.
    #[error("cannot follow the links in the destination {0:?}")]
    Links(String),
    /// A member of an archive that cannot be where it says.
    #[error("cannot extract {member:?} of the archive: {reason}")]
    Member {
        /// Its name.
        member: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// An owner that cannot be found.
    #[error("invalid owner {0:?}: {1}")]
    Owner(String, &'static str),
    /// A mode that is none.
    #[error(
        "invalid mode {0:?}: want an octal number of at most 7777, or changes such as u=rwX,go=rX"
    )]
    Mode(String),
}

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// Where copied files go, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Absolute path as text; a slash or `.` at its end means "into this directory".
    pub path: String,
    /// `--chown`.
    pub owner: Option<Owner>,
    /// `--chmod`.
    pub mode: Option<Mode>,
}

/// What an entry of the layer is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bytes {
    /// A file of a view: the index of the source's files, and the path in them.
    Source(usize, TreePath),
    /// A member of an archive: the index of the archive, and of the member in it.
    Member(usize, usize),
    /// A file whose content stands in the Dockerfile, by its index.
    Inline(usize),
    /// Everything is in the entry: a directory, link or device.
    None,
}

/// Where an entry of the layer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacedFrom {
    /// It is copied, with its time.
    Source,
    /// A directory of the stage that something was put below; it keeps its time.
    Base,
    /// A directory that was missing.
    Made,
    /// The Dockerfile has its content.
    Dockerfile,
}

/// Names one file among those of a copy, however many names it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inode {
    /// The source that it comes from: there are no links between sources.
    group: usize,
    /// Its number in the source.
    number: usize,
}

/// One entry of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Type and metadata; the digest of a file is not set.
    pub entry: Entry,
    /// How it comes to its time.
    pub origin: PlacedFrom,
    /// Where its bytes are.
    pub bytes: Bytes,
    /// Which file it is a name of, where that may have others.
    inode: Option<Inode>,
}

/// The entries of a layer, in the order of the tar.
pub type Placement = BTreeMap<TreePath, Placed>;
