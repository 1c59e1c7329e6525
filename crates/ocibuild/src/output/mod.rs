//! What becomes of an image: a registry, an image layout, an archive, or its root file
//! system. Each output takes the documents and a way to read blobs, and nothing appears
//! at its destination before it is whole.

pub mod archive;
pub mod layout;
pub mod push;
pub mod rootfs;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::content;
use crate::image::manifest::Documents;
use crate::layer;
use crate::registry::{self, Reference};
use crate::{snapshot, source};

/// What is to be done with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Push it under this name.
    Registry(Reference),
    /// Write an OCI image layout into a directory.
    OciDirectory(PathBuf),
    /// Write a tar of an OCI image layout.
    OciArchive(PathBuf),
    /// Write a tar that `docker load` reads.
    DockerArchive(PathBuf),
    /// Write the root file system as a tar.
    Tar(PathBuf),
    /// Write the root file system into a directory.
    Local(PathBuf),
}

/// What went wrong with an output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder of the destination.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The destination holds something else.
    #[error("{path} is not an image layout and not empty: choose another destination")]
    Occupied {
        /// The destination.
        path: PathBuf,
    },
    /// A tar that is written or read.
    #[error(transparent)]
    Tar(#[from] layer::Error),
    /// A push.
    #[error("push {reference}")]
    Push {
        /// The name.
        reference: String,
        /// What the registry said.
        source: registry::Error,
    },
    /// The root file system.
    #[error("write the root file system")]
    Rootfs(#[from] snapshot::Error),
    /// A layer that has to be fetched first.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] content::Error),
}

pub(crate) fn at<T>(
    result: Result<T, impl Into<io::Error>>,
    doing: &'static str,
    path: &Path,
) -> Result<T, Error> {
    result.map_err(|source| Error::Io {
        doing,
        path: path.to_owned(),
        source: source.into(),
    })
}

/// Gives the folder that a file is in.
pub(crate) fn folder_of(dest: &Path) -> &Path {
    match dest.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a file beside a destination, to be renamed to it when it is whole.
pub(crate) fn temporary(folder: &Path) -> Result<NamedTempFile, Error> {
    at(fs::create_dir_all(folder), "create", folder)?;
    at(NamedTempFile::new_in(folder), "create a file in", folder)
}

/// Gives a whole file its name.
pub(crate) fn persist(file: NamedTempFile, dest: &Path) -> Result<(), Error> {
    let mode = fs::Permissions::from_mode(0o644);
    at(
        file.as_file().set_permissions(mode),
        "set the mode of",
        dest,
    )?;
    at(
        file.persist(dest).map_err(|error| error.error),
        "write",
        dest,
    )?;
    Ok(())
}

/// Writes a file beside its destination and renames it when it is whole.
pub(crate) fn write_whole(
    dest: &Path,
    write: impl FnOnce(&mut File) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut file = temporary(folder_of(dest))?;
    write(file.as_file_mut())?;
    persist(file, dest)
}

/// An image as the outputs take it.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Manifest, configuration, layer descriptors.
    pub documents: Documents,
    /// The names that archives and layouts give it.
    pub names: Vec<String>,
    /// Seconds since 1970 for what an output itself dates.
    pub created: i64,
}
