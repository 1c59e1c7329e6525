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
mod walk;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::layer::{ByPath, Toc, TreePath};
use crate::registry::{Digest, Hasher};
use crate::snapshot::beneath::Links;
use crate::snapshot::{Beneath, RootView};
use hashes::{Hashes, Stamp};
use ignore::IgnoreMatcher;
use walk::{Walked, walk};

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

/// Says what was being done to which path where something fails.
fn at<T>(
    result: Result<T, impl Into<io::Error>>,
    doing: &'static str,
    path: impl FnOnce() -> PathBuf,
) -> Result<T, Error> {
    result.map_err(|source| Error::Io {
        doing,
        path: path(),
        source: source.into(),
    })
}

/// A directory whose files can be copied.
#[derive(Debug)]
pub struct Context {
    root: Beneath,
    view: Arc<RootView>,
    stamps: ByPath<Stamp>,
    hashes: Mutex<Hashes>,
    /// Keeps a context that was unpacked or cloned for this build.
    _guard: Option<Arc<TempDir>>,
}

impl Context {
    /// Walks `root` without what `ignore` leaves out. `memory` is a file that remembers
    /// the digests of files that have not changed since; it is read meanwhile.
    pub fn scan(
        root: &Path,
        ignore: Option<&IgnoreMatcher>,
        memory: Option<PathBuf>,
        guard: Option<Arc<TempDir>>,
    ) -> Result<Self, Error> {
        let tree = at(Beneath::open(root), "open", || root.to_owned())?;
        let (walked, hashes) = std::thread::scope(|scope| {
            let hashes = scope.spawn(|| Hashes::load(memory));
            let walked = walk(&tree, root, ignore);
            (walked, hashes.join().expect("reading does not panic"))
        });
        let Walked { entries, stamps } = walked?;
        Ok(Self {
            root: tree,
            view: Arc::new(RootView::new(&[Arc::new(Toc::from_entries(entries))])),
            stamps: ByPath::from_sorted(stamps),
            hashes: Mutex::new(hashes),
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
        at(self.root.file(path, Links::Refuse), "open", || {
            as_path(path)
        })
    }

    /// Gives the digests of files, in their order; a file whose stamp is remembered is not read.
    pub fn digests(&self, paths: &[TreePath], threads: usize) -> Result<Vec<Digest>, Error> {
        let mut next = 0;
        let stamps: Vec<Option<&Stamp>> = paths
            .iter()
            .map(|path| self.stamps.get_next(&mut next, path))
            .collect();
        let mut found = self.lock_hashes().get_all(paths, &stamps);
        let missing: Vec<usize> = (0..paths.len()).filter(|&at| found[at].is_none()).collect();
        let hashed = self.hash_all(paths, &missing, threads)?;
        let mut hashes = self.lock_hashes();
        for (&at, digest) in missing.iter().zip(hashed) {
            found[at] = Some(digest);
            if let Some(stamp) = stamps[at] {
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
                        let mut buffer = vec![0; 128 << 10];
                        let hash = |&at: &usize| self.hash(&paths[at], &mut buffer);
                        part.iter().map(hash).collect()
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

    fn hash(&self, path: &TreePath, buffer: &mut [u8]) -> Result<Digest, Error> {
        let mut file = self.open(path)?;
        let mut hasher = Hasher::sha256();
        loop {
            match at(file.read(buffer), "read", || as_path(path))? {
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
            Err(source) => return at(Err(source), "open", || path),
        };
        let mut text = Vec::new();
        let read = file.take(MAX_IGNORE).read_to_end(&mut text);
        at(read, "read", || path.clone())?;
        let matcher = IgnoreMatcher::parse(&String::from_utf8_lossy(&text));
        return matcher.map(Some).map_err(|source| Error::Ignore {
            file: path.display().to_string(),
            source,
        });
    }
    Ok(None)
}

/// Gives a tree path as a path to show.
pub(crate) fn as_path(path: &TreePath) -> PathBuf {
    path.as_path().to_owned()
}
