//! The store on disk. It is an OCI image layout, so that any tool can read it:
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/<hex>     the layout
//! tocs/<diff_id>                                 table of contents of a layer
//! origins/<digest>                               where a blob that is not here can be had (JSON)
//! layers/<identity>/<diff_id>/                   layers unpacked for RUN
//! cachemounts/<identity>/<id>/<slot>/            directories of `RUN --mount=type=cache`
//! steps/<key>                                    what a step gave (JSON)
//! same/<name>                                    the key of a step that has another name too (JSON)
//! packed/<name>                                  the layer that has these entries (JSON)
//! keys/<key>                                     what a key was made of (JSON)
//! variants/<digest of layer and form>            another compression of a layer (JSON)
//! places/<digest of blob and scope>             repositories in which a blob is (JSON)
//! builds/<id>                                    what became of the steps of a build (JSON)
//! downloads/<digest of URL>                      which blob a file of ADD is, and its validators (JSON)
//! git/<digest>/                                  mirror of a repository
//! locks/<name>                                   one holder at a time, over processes
//! tmp/<process>/                                 work in progress
//! tmp/merged/                                    layers joined for RUN, for engines without mounts
//! ```
//!
//! Invariant: everything outside `tmp` appears by an atomic rename and is complete.
//! Anything but the layout's two files may be deleted at any time; it is made again.

mod places;
pub mod prune;
mod space;
pub mod usage;
mod used;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tempfile::TempDir;

use space::Space;
pub use space::{OwnedRemover, StoreLimits};

use crate::layer::{Compression, DiffId, Toc};
use crate::registry::{Descriptor, Digest, Index, Repository};

/// The annotation with the full name of an image.
pub const IMAGE_NAME: &str = "io.containerd.image.name";

/// Where the bytes of a layer can be had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// This build or an earlier one made it: it is in the store.
    #[default]
    Store,
    /// In a repository of a registry.
    Registry(Repository),
    /// In the image layout in this folder.
    Layout(PathBuf),
}

/// One layer: what it is, and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Digest of its tar.
    pub diff_id: DiffId,
    /// Its blob.
    pub blob: Descriptor,
    /// Where the blob can be had.
    pub origin: Origin,
}

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder of the store.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no room for more.
    #[error("no room for {wanted} bytes: {limit}, {missing} bytes are missing")]
    Full {
        /// What was to be written.
        wanted: u64,
        /// What is missing.
        missing: u64,
        /// The limit.
        limit: String,
    },
    /// Bytes that were to be stored are not what they should be.
    #[error("expected {wanted}, got {found}")]
    Digest {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
}

/// Adds the path and the deed to an I/O error.
pub(crate) trait At<T> {
    /// Says what was being done to which path.
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            doing,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

/// A store; cheap to clone.
#[derive(Debug, Clone)]
pub struct ContentStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    scratch: PathBuf,
    space: Space,
    /// Held while this process lives: who can take it may clear `scratch`.
    _owner: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What is left belongs to other ids at most; the next `open` tries again.
        if let Err(error) = fs::remove_dir_all(&self.scratch) {
            tracing::debug!(path = %self.scratch.display(), %error, "scratch folder stays");
            return;
        }
        drop(fs::remove_file(self.scratch.with_extension("lock")));
    }
}

/// An exclusive lock on a name, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl ContentStore {
    /// Opens the store at `root`, and makes it where it is missing.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::open_with(root, Space::any())
    }

    /// Opens the store at `root` with limits. What belongs to ids that only a sandbox may
    /// touch is removed with `remover`.
    pub fn open_limited(
        root: &Path,
        limits: StoreLimits,
        remover: OwnedRemover,
    ) -> Result<Self, Error> {
        Self::open_with(root, Space::new(limits, remover))
    }

    fn open_with(root: &Path, space: Space) -> Result<Self, Error> {
        for folder in [
            "blobs/sha256",
            "tocs",
            "origins",
            "cachemounts",
            "layers",
            "steps",
            "locks",
            "tmp",
        ] {
            let path = root.join(folder);
            fs::create_dir_all(&path).at("create", &path)?;
        }
        // Trees for RUN hold set-user-id files and devices of images: nobody else's business.
        for folder in ["cachemounts", "layers", "tmp"] {
            let path = root.join(folder);
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&path, mode).at("set the mode of", &path)?;
        }
        let root = root.canonicalize().at("resolve", root)?;
        sweep(&root.join("tmp"));
        let (scratch, owner) = own_scratch(&root.join("tmp"))?;
        let store = Self(Arc::new(Inner {
            root,
            scratch,
            space,
            _owner: owner,
        }));
        store.write_once("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        store.write_once("index.json", br#"{"schemaVersion":2,"manifests":[]}"#)?;
        Ok(store)
    }

    /// Gives the folder of the store.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Gives a folder for work in progress on the store's file system, removed when dropped.
    pub fn scratch(&self) -> Result<TempDir, Error> {
        tempfile::Builder::new()
            .prefix("")
            .tempdir_in(&self.0.scratch)
            .at("create a folder in", &self.0.scratch)
    }

    /// Gives the path of a blob, whether it is there or not.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.algorithm().name();
        self.0.root.join("blobs").join(algorithm).join(digest.hex())
    }

    /// Tells whether a blob is there with the size that its descriptor names.
    pub fn has_blob(&self, descriptor: &Descriptor) -> bool {
        self.has_content(&descriptor.digest, descriptor.size)
    }

    /// Tells whether a blob is there with a size.
    pub fn has_content(&self, digest: &Digest, size: u64) -> bool {
        let path = self.blob_path(digest);
        fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == size)
            && self.mark(&path)
    }

    /// Opens a blob.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.blob_path(digest);
        File::open(&path).at("open", &path)
    }

    /// Reads a small blob and checks its digest; `None` where it is not there.
    pub fn read_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let path = self.blob_path(digest);
        self.mark(&path);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at("read", &path)?,
        };
        let found = Digest::sha256(&bytes);
        if found != *digest {
            return Err(Error::Digest {
                wanted: *digest,
                found,
            });
        }
        Ok(Some(bytes))
    }

    /// Stores a small blob.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::sha256(bytes);
        self.write_file(&self.blob_path(&digest), bytes)?;
        Ok(digest)
    }

    /// Moves a finished file of the same file system in as the blob that it is.
    pub fn adopt_blob(&self, file: &Path, digest: &Digest) -> Result<(), Error> {
        self.rename(file, &self.blob_path(digest))
    }

    /// Gives the table of contents of a layer, if it is known.
    pub fn toc(&self, layer: DiffId) -> Option<Arc<Toc>> {
        let path = self.toc_path(layer);
        if !self.mark(&path) {
            return None;
        }
        let bytes = fs::read(&path).ok()?;
        match Toc::from_bytes(&bytes) {
            Ok(toc) => Some(Arc::new(toc)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "damaged table of contents is made again");
                None
            }
        }
    }

    /// Tells whether the table of contents of a layer is there.
    pub fn has_toc(&self, layer: DiffId) -> bool {
        self.mark(&self.toc_path(layer))
    }

    /// Gives where the table of contents of a layer is kept.
    pub fn toc_path(&self, layer: DiffId) -> PathBuf {
        self.0.root.join("tocs").join(layer.0.hex())
    }

    /// Remembers the table of contents of a layer.
    pub fn put_toc(&self, layer: DiffId, toc: &Toc) -> Result<(), Error> {
        self.write_file(&self.toc_path(layer), &toc.to_bytes())
    }

    /// Moves a finished table of contents in.
    pub fn adopt_toc(&self, toc: &Path, layer: DiffId) -> Result<(), Error> {
        self.rename(toc, &self.toc_path(layer))
    }

    /// Moves a finished layer in: its table of contents, then its blob.
    pub fn adopt_layer(
        &self,
        blob: &Path,
        toc: &Path,
        layer: DiffId,
        descriptor: &Descriptor,
    ) -> Result<(), Error> {
        self.adopt_toc(toc, layer)?;
        self.adopt_blob(blob, &descriptor.digest)
    }

    /// Gives the folder of a layer unpacked for an identity, whether it is there or not.
    pub fn tree_path(&self, identity: &str, layer: DiffId) -> PathBuf {
        self.0
            .root
            .join("layers")
            .join(identity)
            .join(layer.0.hex())
    }

    /// Makes the folder in which a tree is to appear.
    pub fn prepare_tree(&self, tree: &Path) -> Result<(), Error> {
        let folder = tree.parent().unwrap_or(&self.0.root);
        fs::create_dir_all(folder).at("create", folder)
    }

    /// Moves a finished tree in; one that is there already stays, and the new one is left alone.
    pub fn adopt_tree(&self, tree: &Path, identity: &str, layer: DiffId) -> Result<PathBuf, Error> {
        let path = self.tree_path(identity, layer);
        if !self.use_tree(&path) {
            self.rename(tree, &path)?;
            self.use_tree(&path);
        }
        Ok(path)
    }

    /// Gives what a step gave, if it is known.
    pub fn step<T: DeserializeOwned>(&self, key: &Digest) -> Option<T> {
        self.used_record("steps", key)
    }

    /// Remembers what a step gave.
    pub fn put_step<T: Serialize>(&self, key: &Digest, step: &T) -> Result<(), Error> {
        self.put_record("steps", key, step)
    }

    /// Gives a record of a folder.
    pub(crate) fn record<T: DeserializeOwned>(&self, folder: &str, name: &Digest) -> Option<T> {
        read_json(&self.0.root.join(folder).join(name.hex()))
    }

    /// Gives a record of a folder and marks it as used.
    pub(crate) fn used_record<T: DeserializeOwned>(
        &self,
        folder: &str,
        name: &Digest,
    ) -> Option<T> {
        let path = self.0.root.join(folder).join(name.hex());
        self.mark(&path).then(|| read_json(&path)).flatten()
    }

    /// Writes a record of a folder.
    pub(crate) fn put_record<T: Serialize>(
        &self,
        folder: &str,
        name: &Digest,
        record: &T,
    ) -> Result<(), Error> {
        self.write_json(&self.0.root.join(folder).join(name.hex()), record)
    }

    /// Gives the names of the records of a folder.
    pub(crate) fn record_names(&self, folder: &str) -> Vec<Digest> {
        let entries = fs::read_dir(self.0.root.join(folder));
        let names = entries.into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let digest = |name: String| format!("sha256:{name}").parse().ok();
        names.filter_map(digest).collect()
    }

    /// Removes a record of a folder, if it is there.
    pub(crate) fn remove_record(&self, folder: &str, name: &Digest) {
        let path = self.0.root.join(folder).join(name.hex());
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "a record stays");
        }
    }

    /// Gives the blob of a layer with another compression, if there is one.
    pub(crate) fn variant(
        &self,
        layer: DiffId,
        compression: Compression,
        level: Option<i32>,
    ) -> Option<Descriptor> {
        let known = self.used_record("variants", &variant_name(layer, compression, level));
        known.filter(|blob| self.has_blob(blob))
    }

    /// Remembers the blob of a layer with a compression that it has beside the usual one.
    pub(crate) fn put_variant(
        &self,
        layer: DiffId,
        compression: Compression,
        level: Option<i32>,
        blob: &Descriptor,
    ) -> Result<(), Error> {
        self.put_record("variants", &variant_name(layer, compression, level), blob)
    }

    /// Gives what is known of a download, by the digest of its URL.
    pub fn download<T: DeserializeOwned>(&self, key: &Digest) -> Option<T> {
        self.used_record("downloads", key)
    }

    /// Remembers a download.
    pub fn put_download<T: Serialize>(&self, key: &Digest, file: &T) -> Result<(), Error> {
        self.write_json(&self.0.root.join("downloads").join(key.hex()), file)
    }

    /// Remembers where blobs can be had again that are not here.
    pub fn put_origins(&self, layers: &[Layer]) -> Result<(), Error> {
        for layer in layers.iter().filter(|layer| !self.has_blob(&layer.blob)) {
            self.write_json(&self.origin_path(&layer.blob.digest), &layer.origin)?;
        }
        Ok(())
    }

    /// Gives where a blob can be had; the store itself where nothing else is known.
    pub fn origin(&self, blob: &Digest) -> Origin {
        read_json(&self.origin_path(blob)).unwrap_or(Origin::Store)
    }

    fn origin_path(&self, blob: &Digest) -> PathBuf {
        self.0.root.join("origins").join(blob.hex())
    }

    /// Gives what the index of the store names.
    pub fn images(&self) -> Result<Vec<Descriptor>, Error> {
        let path = self.0.root.join("index.json");
        let bytes = fs::read(&path).at("read", &path)?;
        let index: Result<Index, _> = serde_json::from_slice(&bytes);
        Ok(index.at("read the index", &path)?.manifests)
    }

    /// Names images; a name that is taken passes to the new image.
    pub fn name_images(&self, new: Vec<Descriptor>) -> Result<(), Error> {
        let _lock = self.lock("index")?;
        let mut manifests = self.images()?;
        let name = |image: &Descriptor| image.annotations.get(IMAGE_NAME).cloned();
        manifests.retain(|old| new.iter().all(|new| name(new) != name(old)));
        manifests.extend(new);
        self.write_json(&self.0.root.join("index.json"), &Index::of(manifests))
    }

    /// Takes the lock on a name and waits for it; call it where blocking is allowed.
    pub fn lock(&self, name: &str) -> Result<Lock, Error> {
        let path = self.0.root.join("locks").join(name);
        let file = open_lock(&path).at("open", &path)?;
        rustix::fs::flock(file.as_fd(), FlockOperation::LockExclusive).at("lock", &path)?;
        Ok(Lock { _file: file })
    }

    /// Takes the lock on a name if nobody stands in the way: with others who share it, or
    /// alone.
    pub fn try_lock(&self, name: &str, shared: bool) -> Result<Option<Lock>, Error> {
        let path = self.0.root.join("locks").join(name);
        let file = open_lock(&path).at("open", &path)?;
        let operation = match shared {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(file.as_fd(), operation) {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            other => {
                other.at("lock", &path)?;
                Ok(Some(Lock { _file: file }))
            }
        }
    }

    /// Gives the folder of the directories of cache mounts for an identity.
    pub fn cache_mounts(&self, identity: &str) -> PathBuf {
        self.0.root.join("cachemounts").join(identity)
    }

    fn write_once(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.0.root.join(name);
        if path.exists() {
            return Ok(());
        }
        self.write_file(&path, bytes)
    }

    fn write_json<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), Error> {
        let bytes = serde_json::to_vec(value).expect("our records have only string keys");
        self.write_file(path, &bytes)
    }

    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let mut file = tempfile::NamedTempFile::new_in(&self.0.scratch)
            .at("create a file in", &self.0.scratch)?;
        file.write_all(bytes).at("write", path)?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))
            .at("set the mode of", path)?;
        let folder = path.parent().unwrap_or(&self.0.root);
        fs::create_dir_all(folder).at("create", folder)?;
        file.persist(path)
            .map_err(|error| error.error)
            .at("write", path)?;
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let folder = to.parent().unwrap_or(&self.0.root);
        fs::create_dir_all(folder).at("create", folder)?;
        match fs::rename(from, to) {
            // Another process was faster with the same content.
            Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => Ok(()),
            other => other.at("rename to", to),
        }
    }
}

fn variant_name(layer: DiffId, compression: Compression, level: Option<i32>) -> Digest {
    Digest::sha256(format!("{layer} {compression:?} {level:?}").as_bytes())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    File::open(path).ok()?.read_to_end(&mut text).ok()?;
    match serde_json::from_slice(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "damaged record is made again");
            None
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
}

/// Makes this process's folder for work in progress, and a lock that says it lives.
/// The lock is taken before it has the name that `sweep` looks for.
fn own_scratch(tmp: &Path) -> Result<(PathBuf, File), Error> {
    let folder = tempfile::Builder::new()
        .prefix("")
        .tempdir_in(tmp)
        .at("create a folder in", tmp)?
        .keep();
    let path = folder.with_extension("new");
    let lock = open_lock(&path).at("open", &path)?;
    rustix::fs::flock(lock.as_fd(), FlockOperation::LockExclusive).at("lock", &path)?;
    let named = folder.with_extension("lock");
    fs::rename(&path, &named).at("rename to", &named)?;
    Ok((folder, lock))
}

/// Removes what processes that are gone have left behind.
fn sweep(tmp: &Path) {
    let Ok(entries) = fs::read_dir(tmp) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(lock) = open_lock(&path) else {
            continue;
        };
        if rustix::fs::flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let folder = path.with_extension("");
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(path = %folder.display(), %error, "left-over folder stays");
            }
            _ => drop(fs::remove_file(&path)),
        }
    }
}
