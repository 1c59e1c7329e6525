//! Unpacking as a job of a process with the ids of the tree.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Options, complete, fill};
use crate::causes::one_line;
use crate::executor::{Identity, Notes};
use crate::layer::{DiffId, Encoding, Toc};
use crate::snapshot::error::At;
use crate::snapshot::{Error, RootView};

/// What [`job`] is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The blob.
    pub blob: PathBuf,
    /// How it is compressed.
    #[serde(default)]
    pub encoding: Encoding,
    /// The empty directory that gets the files.
    pub tree: PathBuf,
    /// Whose ids it gets.
    pub identity: Identity,
    /// Where overlayfs looks for its notes.
    pub notes: Notes,
    /// The layer that is expected.
    #[serde(default)]
    pub expected: Option<DiffId>,
    /// Where the layer's table is written.
    pub toc: PathBuf,
}

/// What [`job`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Its size.
    pub uncompressed_size: u64,
}

/// What [`complete_job`] is asked to do. Tables are files that [`Toc::to_bytes`] gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Completion {
    /// What [`job`] has filled.
    pub tree: PathBuf,
    /// The directory that it becomes.
    pub dest: PathBuf,
    /// Whose ids it has.
    pub identity: Identity,
    /// Where overlayfs looks for its notes.
    pub notes: Notes,
    /// The table of the layer.
    pub toc: PathBuf,
    /// Tables of the layers below, lowest first.
    #[serde(default)]
    pub lowers: Vec<PathBuf>,
}

/// Fills a directory with what a layer holds: does what a [`Request`] in JSON says, for a
/// process of its own inside a user namespace; gives a [`Response`] in JSON, or the error
/// in one line.
pub fn job(request: &[u8]) -> Result<Vec<u8>, String> {
    let request: Request = serde_json::from_slice(request).map_err(|error| one_line(&error))?;
    let response = request.run().map_err(|error| one_line(&error))?;
    serde_json::to_vec(&response).map_err(|error| one_line(&error))
}

/// Completes such a directory and moves it to its place: does what a [`Completion`] in JSON
/// says; gives `null`, or the error in one line.
pub fn complete_job(request: &[u8]) -> Result<Vec<u8>, String> {
    let request: Completion = serde_json::from_slice(request).map_err(|error| one_line(&error))?;
    request.run().map_err(|error| one_line(&error))?;
    Ok(b"null".to_vec())
}

impl Request {
    fn run(&self) -> Result<Response, Error> {
        let blob = File::open(&self.blob).at_host("open", &self.blob)?;
        self.fill_from(blob)
    }

    /// Does it in this process with the bytes of the blob that somebody gives, whatever is in
    /// its file. Nothing may be believed of it where giving them fails.
    pub(crate) fn fill_from(&self, blob: impl Read + Send) -> Result<Response, Error> {
        let options = Options {
            encoding: self.encoding,
            notes: self.notes,
            expected: self.expected,
            ..Options::new(self.identity.clone())
        };
        let layer = fill(blob, &self.tree, &options)?;
        store_toc(&layer.toc, &self.toc)?;
        Ok(Response {
            diff_id: layer.diff_id,
            uncompressed_size: layer.uncompressed_size,
        })
    }
}

impl Completion {
    fn run(&self) -> Result<(), Error> {
        let options = Options {
            notes: self.notes,
            lowers: load_view(&self.lowers)?,
            ..Options::new(self.identity.clone())
        };
        complete(&self.tree, &load_toc(&self.toc)?, &options)?;
        std::fs::rename(&self.tree, &self.dest).at_host("move the unpacked layer to", &self.dest)
    }
}

/// Loads the tables of lower layers.
pub(in crate::snapshot) fn load_view(paths: &[PathBuf]) -> Result<RootView, Error> {
    let layers = paths.iter().map(|path| load_toc(path));
    Ok(RootView::new(&layers.collect::<Result<Vec<_>, Error>>()?))
}

fn load_toc(path: &Path) -> Result<Arc<Toc>, Error> {
    let bytes = std::fs::read(path).at_host("read", path)?;
    Ok(Arc::new(Toc::from_bytes(&bytes)?))
}

/// Writes a table so that it appears whole.
pub(in crate::snapshot) fn store_toc(toc: &Toc, path: &Path) -> Result<(), Error> {
    let place = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(place.unwrap_or(Path::new(".")))
        .at_host("make a file beside", path)?;
    file.write_all(&toc.to_bytes()).at_host("write", path)?;
    file.persist(path)
        .map_err(|error| error.error)
        .at_host("write", path)?;
    Ok(())
}
