//! The files that COPY and ADD may use: a directory, walked once. `.dockerignore` is
//! applied here and only here; what it leaves out does not exist for the build.
//!
//! What enters: a directory and an ignore file. What leaves: a [`Context`], a view of
//! names and metadata whose contents are hashed when a step needs them. Files belong
//! to 0:0, as the reference builder has them.

pub mod artifact;
mod hashes;
pub mod ignore;
pub mod tar;

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::layer::{Content, Entry, Kind, Toc, TreePath};
use crate::registry::{Digest, Hasher};
use crate::snapshot::beneath::Links;
use crate::snapshot::{Beneath, RootView};
use hashes::{Hashes, Stamp};
use ignore::{IgnoreMatcher, Verdict};

/// What went wrong with a context.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder of the context.
    #[error("{doing} {path} of the build context")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The ignore file.
    #[error("{file}")]
    Ignore {
        /// Its name.
        file: String,
        /// What is wrong.
        source: ignore::IgnoreError,
    },
    /// The tar of a context.
    #[error("unpack the build context")]
    Tar(#[from] tar::TarError),
}

fn at<T>(result: io::Result<T>, doing: &'static str, path: &Path) -> Result<T, Error> {
    result.map_err(|source| Error::Io {
        doing,
        path: path.to_owned(),
        source,
    })
}

/// A directory whose files can be copied.
#[derive(Debug)]
pub struct Context {
    root: Beneath,
    view: Arc<RootView>,
    stamps: HashMap<TreePath, Stamp>,
    hashes: Mutex<Hashes>,
    /// Keeps a context that was unpacked or cloned for this build.
    _guard: Option<Arc<TempDir>>,
}

impl Context {
    /// Walks `root` without what `ignore` leaves out. `memory` is a file that remembers
    /// the digests of files that have not changed since.
    pub fn scan(
        root: &Path,
        ignore: Option<&IgnoreMatcher>,
        memory: Option<PathBuf>,
        guard: Option<Arc<TempDir>>,
    ) -> Result<Self, Error> {
        let mut walk = Walk {
            ignore,
            // A table of contents begins with its root.
            entries: vec![Entry::dir(TreePath::root())],
            stamps: HashMap::new(),
            first_names: HashMap::new(),
        };
        walk.folder(root, &TreePath::root(), &Verdict::default())?;
        let toc = Toc::from_entries(walk.entries);
        Ok(Self {
            root: at(Beneath::open(root), "open", root)?,
            view: Arc::new(RootView::new(&[Arc::new(toc)])),
            stamps: walk.stamps,
            hashes: Mutex::new(Hashes::load(memory)),
            _guard: guard,
        })
    }

    /// Gives names and metadata. The digests of its files are not yet known and all zero;
    /// [`Context::digests`] has the true ones.
    pub fn view(&self) -> &Arc<RootView> {
        &self.view
    }

    /// Opens a file, following no link on the way.
    pub fn open(&self, path: &TreePath) -> Result<File, Error> {
        at(self.root.file(path, Links::Refuse), "open", &as_path(path))
    }

    /// Gives the digests of files, in their order; a file whose stamp is remembered is not read.
    pub fn digests(&self, paths: &[TreePath], threads: usize) -> Result<Vec<Digest>, Error> {
        let mut found: Vec<Option<Digest>> = {
            let hashes = self.lock_hashes();
            paths
                .iter()
                .map(|path| hashes.get(path, self.stamps.get(path)?))
                .collect()
        };
        let missing: Vec<usize> = (0..paths.len()).filter(|&at| found[at].is_none()).collect();
        for (at, digest) in missing.iter().zip(self.hash_all(paths, &missing, threads)?) {
            found[*at] = Some(digest);
        }
        let mut hashes = self.lock_hashes();
        for &at in &missing {
            if let (Some(stamp), Some(digest)) = (self.stamps.get(&paths[at]), found[at]) {
                hashes.put(paths[at].clone(), *stamp, digest);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Writes what was learned about unchanged files; a failure costs time next time, nothing else.
    pub fn remember(&self) {
        self.lock_hashes().save();
    }

    fn lock_hashes(&self) -> std::sync::MutexGuard<'_, Hashes> {
        self.hashes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn hash_all(
        &self,
        paths: &[TreePath],
        wanted: &[usize],
        threads: usize,
    ) -> Result<Vec<Digest>, Error> {
        let share = wanted.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            let workers: Vec<_> = wanted
                .chunks(share)
                .map(|part| {
                    scope.spawn(move || -> Result<Vec<Digest>, Error> {
                        part.iter().map(|&at| self.hash(&paths[at])).collect()
                    })
                })
                .collect();
            let mut digests = Vec::with_capacity(wanted.len());
            for worker in workers {
                digests.extend(worker.join().expect("hashing does not panic")?);
            }
            Ok(digests)
        })
    }

    fn hash(&self, path: &TreePath) -> Result<Digest, Error> {
        let mut file = self.open(path)?;
        let mut hasher = Hasher::sha256();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match at(file.read(&mut buffer), "read", &as_path(path))? {
                0 => return Ok(hasher.finish()),
                count => hasher.update(&buffer[..count]),
            }
        }
    }
}

/// Longer files are no ignore files.
const MAX_IGNORE: u64 = 4 << 20;

/// Opens a file of a context by its name. A repository may have links, but none leads
/// out of it.
pub fn open_in(root: &Path, name: impl AsRef<Path>) -> io::Result<File> {
    let name = name.as_ref().as_os_str().as_bytes();
    let path = TreePath::parse(name).map_err(io::Error::other)?;
    Beneath::open(root)?.file(&path, Links::Follow)
}

/// Reads the ignore file of a context: the one named after the Dockerfile, else the
/// one in the root. A context without one ignores nothing.
pub fn read_ignore(root: &Path, dockerfile: Option<&Path>) -> Result<Option<IgnoreMatcher>, Error> {
    let named = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in named.into_iter().chain([root.join(".dockerignore")]) {
        let opened = match path.strip_prefix(root) {
            Ok(inside) => open_in(root, inside),
            Err(_) => File::open(&path),
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return at(Err(source), "open", &path),
        };
        let mut text = Vec::new();
        at(file.take(MAX_IGNORE).read_to_end(&mut text), "read", &path)?;
        let matcher = IgnoreMatcher::parse(&String::from_utf8_lossy(&text));
        return matcher.map(Some).map_err(|source| Error::Ignore {
            file: path.display().to_string(),
            source,
        });
    }
    Ok(None)
}

/// One walk over a directory, in the canonical order of names.
struct Walk<'a> {
    ignore: Option<&'a IgnoreMatcher>,
    entries: Vec<Entry>,
    stamps: HashMap<TreePath, Stamp>,
    /// The first name of each file that has several.
    first_names: HashMap<(u64, u64), TreePath>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, name: &TreePath, verdict: &Verdict) -> Result<(), Error> {
        let mut children = Vec::new();
        for child in at(fs::read_dir(folder), "read the folder", folder)? {
            children.push(at(child, "read the folder", folder)?.file_name());
        }
        children.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for child in children {
            let path = folder.join(&child);
            let name = name.join(child.as_bytes()).map_err(io::Error::other);
            self.child(&path, &at(name, "name", &path)?, verdict)?;
        }
        Ok(())
    }

    fn child(&mut self, path: &Path, name: &TreePath, parent: &Verdict) -> Result<(), Error> {
        let meta = at(fs::symlink_metadata(path), "examine", path)?;
        let text = String::from_utf8_lossy(name.as_bytes());
        let verdict = match self.ignore {
            Some(ignore) => ignore.check(&text, parent),
            None => Verdict::default(),
        };
        if meta.is_dir() {
            return self.subfolder(path, name, &meta, &verdict);
        }
        if verdict.is_ignored() {
            return Ok(());
        }
        if let Some(kind) = self.kind(path, name, &meta)? {
            self.entries.push(entry(name, kind, &meta));
        }
        Ok(())
    }

    /// An ignored folder is walked only where a later `!` rule could bring a part of it
    /// back, and is there itself only if one did.
    fn subfolder(
        &mut self,
        path: &Path,
        name: &TreePath,
        meta: &Metadata,
        verdict: &Verdict,
    ) -> Result<(), Error> {
        let text = String::from_utf8_lossy(name.as_bytes());
        if self
            .ignore
            .is_some_and(|ignore| ignore.can_prune(&text, verdict))
        {
            return Ok(());
        }
        let before = self.entries.len();
        self.entries.push(entry(name, Kind::Dir, meta));
        self.folder(path, name, verdict)?;
        if verdict.is_ignored() && self.entries.len() == before + 1 {
            self.entries.pop();
        }
        Ok(())
    }

    fn kind(
        &mut self,
        path: &Path,
        name: &TreePath,
        meta: &Metadata,
    ) -> Result<Option<Kind<Content>>, Error> {
        let file_type = meta.file_type();
        if file_type.is_symlink() {
            let target = at(fs::read_link(path), "read the link", path)?;
            return Ok(Some(Kind::Symlink {
                target: target.into_os_string().into_vec(),
            }));
        }
        if !file_type.is_file() {
            return Ok(special(meta));
        }
        if meta.nlink() > 1 {
            let first = self
                .first_names
                .entry((meta.dev(), meta.ino()))
                .or_insert_with(|| name.clone());
            if first != name {
                let target = first.clone();
                return Ok(Some(Kind::Hardlink { target }));
            }
        }
        self.stamps.insert(name.clone(), Stamp::of(meta));
        Ok(Some(Kind::File(Content {
            size: meta.len(),
            digest: unknown(),
        })))
    }
}

/// Stands where a digest is not yet computed.
fn unknown() -> Digest {
    Digest::from_sha256([0; 32])
}

/// Fifos and devices are kept; a socket means nothing in an image.
fn special(meta: &Metadata) -> Option<Kind<Content>> {
    let file_type = meta.file_type();
    let (major, minor) = (
        rustix::fs::major(meta.rdev()),
        rustix::fs::minor(meta.rdev()),
    );
    if file_type.is_fifo() {
        Some(Kind::Fifo)
    } else if file_type.is_char_device() {
        Some(Kind::Char { major, minor })
    } else if file_type.is_block_device() {
        Some(Kind::Block { major, minor })
    } else {
        None
    }
}

fn entry(name: &TreePath, kind: Kind<Content>, meta: &Metadata) -> Entry {
    Entry {
        path: name.clone(),
        kind,
        mode: meta.mode() & 0o7777,
        uid: 0,
        gid: 0,
        mtime: meta.mtime(),
        xattrs: Vec::new(),
        implicit: false,
    }
}

/// Gives a tree path as a path to show.
pub(crate) fn as_path(path: &TreePath) -> PathBuf {
    path.as_path().to_owned()
}
