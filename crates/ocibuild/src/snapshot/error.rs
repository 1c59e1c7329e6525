//! What can go wrong between layers and trees.

use std::io;
use std::path::{Path, PathBuf};

use crate::layer::{self, DiffId, TreePath};

/// A tree that could not be read, written or looked up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation inside a tree failed.
    #[error("cannot {doing} {path}")]
    Tree {
        /// What was being done: `create`, `open`, …
        doing: &'static str,
        /// Where, from the root of the tree.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An operation on a file of the builder failed.
    #[error("cannot {doing} {}", .path.display())]
    Host {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The layer itself.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// The layer is not the one that was asked for.
    #[error("the layer has diff_id {found}, expected {expected}")]
    WrongLayer {
        /// The one that was asked for.
        expected: Box<DiffId>,
        /// What its bytes say.
        found: Box<DiffId>,
    },
    /// Symbolic links that do not come to an end.
    #[error("too many symbolic links on the way to {path}")]
    Loop {
        /// The path that was looked up.
        path: String,
    },
    /// A path goes on below something that is not a directory.
    #[error("{path} is not a directory")]
    NotDirectory {
        /// What is not a directory.
        path: TreePath,
    },
    /// An upper directory refers to lower ones in a way that layers do not have.
    #[error("{path} uses overlayfs feature {feature}, which a layer cannot hold")]
    OverlayFeature {
        /// The file or directory.
        path: TreePath,
        /// `redirect_dir` or `metacopy`.
        feature: &'static str,
    },
}

/// Names the place of an operation that failed.
pub(super) trait At<T> {
    fn at(self, doing: &'static str, path: &TreePath) -> Result<T, Error>;
    fn at_host(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: &TreePath) -> Result<T, Error> {
        self.map_err(|error| Error::Tree {
            doing,
            path: path.clone(),
            source: error.into(),
        })
    }

    fn at_host(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|error| Error::Host {
            doing,
            path: path.to_owned(),
            source: error.into(),
        })
    }
}
