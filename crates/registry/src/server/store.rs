//! The registry on disk. Contents are shared; what a repository has is a link.
//!
//! ```text
//! blobs/sha256/ab/abcd…                          every content, manifests too
//! repositories/<name>/_blobs/sha256/abcd…        empty: the repository has the blob
//! repositories/<name>/_manifests/sha256/abcd…    the manifest's media type
//! repositories/<name>/_tags/<tag>                the digest that the tag names
//! repositories/<name>/_referrers/sha256/<subject>/sha256-abcd…   a descriptor
//! uploads/…                                      what is being written
//! ```
//!
//! Invariants: names are checked before they come here, so no path leaves the folder
//! (a component never begins with `_` or `.`); every file appears by a rename from
//! `uploads/`, so a killed process leaves no half file, and a content is there
//! before the first link to it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use tempfile::{NamedTempFile, TempPath};

use super::quota::Quota;
use super::route::{Key, Name};
use super::uploads::Sessions;
use crate::{Descriptor, Digest, reference};

/// After this time a file in `uploads/` belongs to a process that is gone.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A registry's directory. Clones are the same directory.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    /// Held while the manifests and tags of any repository change.
    changes: Mutex<()>,
    /// Shared by whatever links contents, taken alone by whoever collects garbage.
    links: RwLock<()>,
    quota: Quota,
    /// Bytes of all contents.
    used: AtomicU64,
    sessions: Sessions,
}

/// A file operation of the store that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub struct StoreError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl StoreError {
    pub(super) fn new(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            verb,
            path: path.to_owned(),
            source,
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, StoreError>;

/// A manifest of a repository.
pub(super) struct StoredManifest {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.shared.root.display())
    }
}

impl Store {
    /// Opens a directory, creating it where it is missing, and clears away uploads
    /// that a process left a day ago or earlier.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(root, Quota::default())
    }

    /// Opens a directory that may hold so much.
    pub fn open_with(root: impl Into<PathBuf>, quota: Quota) -> Result<Self> {
        let root = root.into();
        let uploads = root.join("uploads");
        for folder in [&uploads, &root.join("blobs"), &root.join("repositories")] {
            create_folder(folder)?;
        }
        remove_stale(&uploads)?;
        let store = Self {
            shared: Arc::new(Shared {
                root,
                changes: Mutex::new(()),
                links: RwLock::new(()),
                quota,
                used: AtomicU64::new(0),
                sessions: Sessions::default(),
            }),
        };
        if quota.total.is_some() {
            store.recount()?;
        }
        Ok(store)
    }

    pub(super) fn quota(&self) -> Quota {
        self.shared.quota
    }

    /// Gives the bytes of all contents, where there is a limit for them.
    pub(super) fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Counts the bytes of all contents.
    pub(super) fn recount(&self) -> Result<()> {
        let mut used = 0;
        for (_, path) in self.contents()? {
            used += size_of(&path)?;
        }
        self.shared.used.store(used, Ordering::Relaxed);
        Ok(())
    }

    /// Counts the bytes of what a repository has.
    pub(super) fn used_by(&self, name: &Name) -> Result<u64> {
        let mut digests = self.links(name, "_blobs")?;
        digests.extend(self.links(name, "_manifests")?);
        let mut used = 0;
        for digest in digests {
            used += size_of(&self.content(&digest))?;
        }
        Ok(used)
    }

    /// Lists the digests that a repository links as blobs or as manifests.
    pub(super) fn links(&self, name: &Name, kind: &str) -> Result<Vec<Digest>> {
        let folder = self.repository(name).join(kind);
        let mut digests = Vec::new();
        for algorithm in names_in(&folder)? {
            for hex in names_in(&folder.join(&algorithm))? {
                digests.extend(format!("{algorithm}:{hex}").parse::<Digest>());
            }
        }
        Ok(digests)
    }

    /// Lists all contents.
    pub(super) fn contents(&self) -> Result<Vec<(Digest, PathBuf)>> {
        let root = self.shared.root.join("blobs");
        let mut contents = Vec::new();
        for algorithm in names_in(&root)? {
            for start in names_in(&root.join(&algorithm))? {
                let folder = root.join(&algorithm).join(start);
                for hex in names_in(&folder)? {
                    let digest = format!("{algorithm}:{hex}").parse::<Digest>();
                    contents.extend(digest.map(|digest| (digest, folder.join(&hex))));
                }
            }
        }
        Ok(contents)
    }

    /// Lists the digests that the tags of a repository name.
    pub(super) fn tagged(&self, name: &Name) -> Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for tag in self.all_tags(name)? {
            digests.extend(self.read_tag(&self.tag_link(name, &tag))?);
        }
        Ok(digests)
    }

    /// Waits until nobody links contents, and lets nobody do so for as long.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        let lock = self.shared.links.write();
        lock.unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock guards no data, so a panic under it spoils nothing.
    fn linking(&self) -> RwLockReadGuard<'_, ()> {
        let lock = self.shared.links.read();
        lock.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    /// Makes an empty file that disappears unless it is put into its place.
    pub(super) fn temporary(&self) -> Result<NamedTempFile> {
        let folder = self.shared.root.join("uploads");
        tempfile::Builder::new()
            .prefix("upload-")
            .tempfile_in(&folder)
            .map_err(|source| StoreError::new("create a file in", &folder, source))
    }

    /// Puts a complete file into its place among the contents and links it.
    pub(super) fn commit_blob(&self, name: &Name, digest: &Digest, file: TempPath) -> Result<()> {
        let _linking = self.linking();
        let path = self.content(digest);
        if !exists(&path)? {
            let size = size_of(&file)?;
            self.shared.used.fetch_add(size, Ordering::Relaxed);
        }
        self.place(file, &path)?;
        self.link_blob(name, digest)
    }

    /// Opens a blob of a repository; gives its size too.
    pub(super) fn open_blob(&self, name: &Name, digest: &Digest) -> Result<Option<(File, u64)>> {
        if !self.has_blob(name, digest)? {
            return Ok(None);
        }
        let path = self.content(digest);
        let Some(file) = found(File::open(&path), "open", &path)? else {
            return Ok(None);
        };
        let metadata = file.metadata();
        let size = metadata.map_err(|source| StoreError::new("look at", &path, source))?;
        Ok(Some((file, size.len())))
    }

    /// Tells whether a repository has a blob, for somebody who goes on to use it: its time
    /// of grace begins anew.
    pub(super) fn keep_blob(&self, name: &Name, digest: &Digest) -> Result<bool> {
        let _linking = self.linking();
        let there = self.has_blob(name, digest)?;
        if there {
            let link = self.blob_link(name, digest);
            let file = found(File::open(&link), "open", &link)?;
            if let Some(file) = file {
                let now = file.set_modified(SystemTime::now());
                now.map_err(|source| StoreError::new("touch", &link, source))?;
            }
        }
        Ok(there)
    }

    pub(super) fn has_blob(&self, name: &Name, digest: &Digest) -> Result<bool> {
        exists(&self.blob_link(name, digest))
    }

    /// Links a blob of one repository into another; false where there is none.
    pub(super) fn mount(&self, from: &Name, to: &Name, digest: &Digest) -> Result<bool> {
        let _linking = self.linking();
        let there = self.has_blob(from, digest)? && exists(&self.content(digest))?;
        if there {
            self.link_blob(to, digest)?;
        }
        Ok(there)
    }

    /// Takes a blob from a repository; false where it had none. The content stays,
    /// because other repositories may have it.
    pub(super) fn unlink_blob(&self, name: &Name, digest: &Digest) -> Result<bool> {
        remove(&self.blob_link(name, digest))
    }

    /// Finds a manifest by tag or digest.
    pub(super) fn manifest(&self, name: &Name, key: &Key) -> Result<Option<StoredManifest>> {
        let Some(digest) = self.manifest_digest(name, key)? else {
            return Ok(None);
        };
        let link = self.manifest_link(name, &digest);
        let Some(media_type) = found(fs::read_to_string(&link), "read", &link)? else {
            return Ok(None);
        };
        let path = self.content(&digest);
        let bytes = found(fs::read(&path), "read", &path)?;
        Ok(bytes.map(|bytes| StoredManifest {
            digest,
            media_type,
            bytes,
        }))
    }

    pub(super) fn has_manifest(&self, name: &Name, digest: &Digest) -> Result<bool> {
        exists(&self.manifest_link(name, digest))
    }

    /// Stores a manifest, then what refers to it: the list of its subject, the tag.
    pub(super) fn put_manifest(
        &self,
        name: &Name,
        manifest: &StoredManifest,
        tag: Option<&str>,
        referrer: Option<(&Digest, &Descriptor)>,
    ) -> Result<()> {
        let digest = &manifest.digest;
        let _linking = self.linking();
        let _changes = self.changes();
        let path = self.content(digest);
        if !exists(&path)? {
            let size = manifest.bytes.len() as u64;
            self.shared.used.fetch_add(size, Ordering::Relaxed);
        }
        self.write(&path, &manifest.bytes)?;
        let link = self.manifest_link(name, digest);
        self.write(&link, manifest.media_type.as_bytes())?;
        if let Some((subject, descriptor)) = referrer {
            let path = self.referrers_folder(name, subject).join(file_name(digest));
            let json = serde_json::to_vec(descriptor)
                .map_err(|error| StoreError::new("encode", &path, error.into()))?;
            self.write(&path, &json)?;
        }
        match tag {
            Some(tag) => self.write(&self.tag_link(name, tag), digest.to_string().as_bytes()),
            None => Ok(()),
        }
    }

    /// Removes a manifest, the tags that name it, and its place in the list of its
    /// subject; false where there was none.
    pub(super) fn delete_manifest(
        &self,
        name: &Name,
        digest: &Digest,
        subject: Option<&Digest>,
    ) -> Result<bool> {
        let _changes = self.changes();
        for tag in self.all_tags(name)? {
            let link = self.tag_link(name, &tag);
            if self.read_tag(&link)? == Some(*digest) {
                remove(&link)?;
            }
        }
        self.unlink_manifest(name, digest, subject)
    }

    /// Removes a manifest that no tag names, and its place in the list of its subject.
    pub(super) fn unlink_manifest(
        &self,
        name: &Name,
        digest: &Digest,
        subject: Option<&Digest>,
    ) -> Result<bool> {
        if let Some(subject) = subject {
            remove(&self.referrers_folder(name, subject).join(file_name(digest)))?;
        }
        remove(&self.manifest_link(name, digest))
    }

    /// Removes a tag; false where there was none.
    pub(super) fn delete_tag(&self, name: &Name, tag: &str) -> Result<bool> {
        let _changes = self.changes();
        remove(&self.tag_link(name, tag))
    }

    /// Lists the descriptors of the manifests that name `subject`.
    pub(super) fn referrers(&self, name: &Name, subject: &Digest) -> Result<Vec<Descriptor>> {
        let folder = self.referrers_folder(name, subject);
        let mut descriptors = Vec::new();
        for file in names_in(&folder)? {
            let path = folder.join(file);
            if let Some(json) = found(fs::read(&path), "read", &path)? {
                let descriptor = serde_json::from_slice(&json)
                    .map_err(|error| StoreError::new("decode", &path, error.into()))?;
                descriptors.push(descriptor);
            }
        }
        Ok(descriptors)
    }

    /// Lists the tags of a repository in the order of their bytes; none where there is
    /// no such repository.
    pub(super) fn tags(&self, name: &Name) -> Result<Option<Vec<String>>> {
        match exists(&self.repository(name))? {
            true => self.all_tags(name).map(Some),
            false => Ok(None),
        }
    }

    /// Lists the repositories that have a manifest, in the order of their bytes.
    pub(super) fn repositories(&self) -> Result<Vec<String>> {
        self.repositories_with("_manifests")
    }

    /// Lists the repositories that have a folder of this name, or any of theirs.
    pub(super) fn repositories_with(&self, kind: &str) -> Result<Vec<String>> {
        let mut found = BTreeSet::new();
        let mut open = vec![String::new()];
        while let Some(parent) = open.pop() {
            let folder = self.shared.root.join("repositories").join(&parent);
            for child in names_in(&folder)? {
                if child == kind || (kind.is_empty() && child.starts_with('_')) {
                    found.insert(parent.clone());
                } else if !child.starts_with('_') {
                    let slash = if parent.is_empty() { "" } else { "/" };
                    open.push(format!("{parent}{slash}{child}"));
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    fn manifest_digest(&self, name: &Name, key: &Key) -> Result<Option<Digest>> {
        match key {
            Key::Digest(digest) => Ok(Some(*digest)),
            Key::Tag(tag) => self.read_tag(&self.tag_link(name, tag)),
            Key::Invalid => Ok(None),
        }
    }

    fn read_tag(&self, link: &Path) -> Result<Option<Digest>> {
        let Some(text) = found(fs::read_to_string(link), "read", link)? else {
            return Ok(None);
        };
        let digest = text
            .parse()
            .map_err(|error| StoreError::new("decode", link, io::Error::other(error)))?;
        Ok(Some(digest))
    }

    fn all_tags(&self, name: &Name) -> Result<Vec<String>> {
        let mut tags = names_in(&self.repository(name).join("_tags"))?;
        tags.retain(|tag| reference::is_tag(tag));
        tags.sort_unstable();
        Ok(tags)
    }

    fn link_blob(&self, name: &Name, digest: &Digest) -> Result<()> {
        self.write(&self.blob_link(name, digest), b"")
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = self.temporary()?;
        file.write_all(bytes)
            .map_err(|source| StoreError::new("write", file.path(), source))?;
        self.place(file.into_temp_path(), path)
    }

    fn place(&self, file: TempPath, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            create_folder(folder)?;
        }
        file.persist(path)
            .map_err(|failed| StoreError::new("rename a file to", path, failed.error))
    }

    /// The lock guards no data, so a panic under it spoils nothing.
    fn changes(&self) -> MutexGuard<'_, ()> {
        let lock = self.shared.changes.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn content(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let folder = self.shared.root.join("blobs");
        folder
            .join(digest.algorithm().name())
            .join(&hex[..2])
            .join(&hex)
    }

    fn repository(&self, name: &Name) -> PathBuf {
        self.shared.root.join("repositories").join(name.as_str())
    }

    pub(super) fn blob_link(&self, name: &Name, digest: &Digest) -> PathBuf {
        link_in(&self.repository(name).join("_blobs"), digest)
    }

    pub(super) fn manifest_link(&self, name: &Name, digest: &Digest) -> PathBuf {
        link_in(&self.repository(name).join("_manifests"), digest)
    }

    fn tag_link(&self, name: &Name, tag: &str) -> PathBuf {
        self.repository(name).join("_tags").join(tag)
    }

    fn referrers_folder(&self, name: &Name, subject: &Digest) -> PathBuf {
        link_in(&self.repository(name).join("_referrers"), subject)
    }
}

fn link_in(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(digest.algorithm().name()).join(digest.hex())
}

fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| StoreError::new("create", path, source))
}

/// Turns "there is no such file" into none.
pub(super) fn found<T>(
    result: io::Result<T>,
    verb: &'static str,
    path: &Path,
) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::new(verb, path, source)),
    }
}

/// Gives the size of a file; nothing where there is none.
fn size_of(path: &Path) -> Result<u64> {
    let metadata = found(fs::symlink_metadata(path), "look at", path)?;
    Ok(metadata.map_or(0, |metadata| metadata.len()))
}

fn exists(path: &Path) -> Result<bool> {
    found(fs::symlink_metadata(path), "look at", path).map(|metadata| metadata.is_some())
}

pub(super) fn remove(path: &Path) -> Result<bool> {
    found(fs::remove_file(path), "remove", path).map(|removed| removed.is_some())
}

/// Gives the names in a folder; none where there is no folder.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>> {
    let Some(entries) = found(fs::read_dir(folder), "list", folder)? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| StoreError::new("list", folder, source))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn remove_stale(folder: &Path) -> Result<()> {
    for name in names_in(folder)? {
        let path = folder.join(name);
        let Some(metadata) = found(fs::symlink_metadata(&path), "look at", &path)? else {
            continue;
        };
        let age = metadata
            .modified()
            .ok()
            .and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > STALE) {
            remove(&path)?;
        }
    }
    Ok(())
}
