//! A bare repository in the store for each URL, so that a checkout fetches only what no
//! checkout before it has.
//!
//! ```text
//! git/<digest of URL, and of who may see it>/
//!   objects/ refs/got/ shallow …     a bare repository; a reference for each name that was fetched
//!   lfs/<digest>                     contents of Git LFS
//!   origin                           the URL after redirects
//!   busy                             somebody adds to it, or died while doing so
//! ```
//!
//! What is asked for with a token and what everybody may see have mirrors of their own. That
//! with a token is used only after the server has let this build in, that without also
//! without asking, where the commit is known.
//!
//! Invariant: a mirror appears complete, by a rename, and is then only added to, by one
//! process at a time. Whoever reads takes no lock: objects have names that say what is in
//! them, and a commit of which one is missing or broken makes the mirror go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ocibuild_registry::Digest;
use tempfile::NamedTempFile;
use url::Url;

use super::error::GitError;
use super::fetch;
use super::policy::Policy;
use super::refs::Found;
use super::remote::Endpoint;
use super::watch::Watch;
use crate::content::{ContentStore, Lock};

const FOLDER: &str = "git";
const ORIGIN: &str = "origin";
const BUSY: &str = "busy";
const LFS: &str = "lfs";
/// Each fetch brings a pack, and each pack is looked into for each object.
const MAX_PACKS: usize = 64;

/// The mirror of one URL, whether it is there or not.
pub(super) struct Mirror {
    store: ContentStore,
    name: String,
    path: PathBuf,
    is_public: bool,
}

/// Objects where they can be read.
pub(super) struct Objects {
    pub(super) repository: gix::Repository,
    pub(super) commit: gix::ObjectId,
    /// Nothing of them was there before.
    pub(super) is_new: bool,
}

impl Mirror {
    /// Gives the mirror of a URL for those who show a login or key there, or for everybody.
    pub(super) fn of(store: &ContentStore, url: &Url, is_public: bool, policy: &Policy) -> Self {
        let whose = format!("{is_public} {:?} {url}", policy.addresses);
        let name = Digest::sha256(whose.as_bytes()).hex();
        Self {
            path: store.root().join(FOLDER).join(&name),
            store: store.clone(),
            name,
            is_public,
        }
    }

    /// Gives where the mirror came from, if nobody need be asked who may see it.
    pub(super) fn public_origin(&self) -> Option<Url> {
        let text = fs::read_to_string(self.path.join(ORIGIN)).ok()?;
        self.is_public.then(|| text.parse().ok()).flatten()
    }

    /// Gives the objects of a commit that is here.
    pub(super) fn find(&self, id: gix::ObjectId, largest: u64) -> Option<Objects> {
        let repository = self.open(largest)?;
        let commit = repository.find_object(id).ok()?.peel_to_commit().ok()?.id;
        Some(Objects {
            repository,
            commit,
            is_new: false,
        })
    }

    /// Gives the objects of a commit, fetched if they are not here. Whoever waits for another
    /// that fetches takes what that one has brought.
    pub(super) fn bring(
        &self,
        endpoint: &Endpoint,
        found: &Found,
        watch: &Watch<'_>,
    ) -> Result<Objects, GitError> {
        let largest = endpoint.budget.object();
        let known = || found.id.and_then(|id| self.find(id, largest));
        if let Some(objects) = known() {
            return Ok(objects);
        }
        let _lock = self.lock(watch)?;
        if let Some(objects) = known() {
            return Ok(objects);
        }
        if let Some(repository) = self.open_to_write(largest) {
            let busy = self.path.join(BUSY);
            fs::write(&busy, "").map_err(GitError::io(&busy))?;
            let fetched = fetch::into(&repository, endpoint, &found.wanted, watch);
            fs::remove_file(&busy).map_err(GitError::io(&busy))?;
            match fetched {
                Err(error) if self.may_be_broken(&error, endpoint, watch) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "a mirror cannot be added to and is made again");
                }
                fetched => {
                    let commit = fetched?;
                    self.store.keep_limits()?;
                    return Ok(Objects {
                        repository,
                        commit,
                        is_new: false,
                    });
                }
            }
        }
        self.make(endpoint, found, watch)
    }

    /// Takes a mirror away in which something is missing or broken.
    pub(super) fn discard(&self, watch: &Watch<'_>) -> Result<(), GitError> {
        let _lock = self.lock(watch)?;
        self.take_away()
    }

    /// Gives the path of a content of Git LFS, whether it is there or not.
    pub(super) fn large_file(&self, digest: &str) -> PathBuf {
        self.path.join(LFS).join(digest)
    }

    /// Keeps a content of Git LFS, which is what its digest says.
    pub(super) fn keep_large_file(&self, digest: &str, file: &Path) -> Result<(), GitError> {
        let (place, folder) = (self.large_file(digest), self.path.join(LFS));
        fs::create_dir_all(&folder).map_err(GitError::io(&folder))?;
        let mut kept = NamedTempFile::new_in(&folder).map_err(GitError::io(&folder))?;
        let mut from = fs::File::open(file).map_err(GitError::io(file))?;
        io::copy(&mut from, kept.as_file_mut()).map_err(GitError::io(&place))?;
        kept.persist(&place)
            .map_err(|failed| GitError::io(&place)(failed.error))?;
        Ok(())
    }

    fn open(&self, largest: u64) -> Option<gix::Repository> {
        self.store.use_folder(&self.path);
        gix::open_opts(
            &self.path,
            fetch::open_options(largest).open_path_as_is(true),
        )
        .ok()
    }

    /// Opens what can be added to; nobody else does so meanwhile.
    fn open_to_write(&self, largest: u64) -> Option<gix::Repository> {
        let is_interrupted = self.path.join(BUSY).exists();
        let packs = fs::read_dir(self.path.join("objects/pack")).ok()?;
        match is_interrupted || packs.count() > 2 * MAX_PACKS {
            true => None,
            false => self.open(largest),
        }
    }

    /// Tells whether a fetch failed for what is here, and not for the server or the network.
    fn may_be_broken(&self, error: &GitError, endpoint: &Endpoint, watch: &Watch<'_>) -> bool {
        matches!(error, GitError::Fetch { .. })
            && !error.is_transient()
            && !endpoint.budget.is_broken()
            && endpoint.budget.excess().is_none()
            && !watch.cancel.is_cancelled()
            && crate::net::Refused::among(error).is_none()
    }

    fn make(
        &self,
        endpoint: &Endpoint,
        found: &Found,
        watch: &Watch<'_>,
    ) -> Result<Objects, GitError> {
        let largest = endpoint.budget.object();
        let scratch = self.store.scratch()?;
        let place = scratch.path().join("mirror");
        let commit = {
            let repository = make_bare(&place, largest).map_err(|source| GitError::Fetch {
                url: super::public_url(&endpoint.url),
                source: Box::new(source),
            })?;
            fetch::into(&repository, endpoint, &found.wanted, watch)?
        };
        let origin = place.join(ORIGIN);
        fs::write(&origin, endpoint.url.as_str()).map_err(GitError::io(&origin))?;
        self.take_away()?;
        let folder = self.store.root().join(FOLDER);
        fs::create_dir_all(&folder).map_err(GitError::io(&folder))?;
        fs::rename(&place, &self.path).map_err(GitError::io(&self.path))?;
        self.store.keep_limits()?;
        let objects = self.find(commit, largest).ok_or_else(|| GitError::Io {
            path: self.path.clone(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        Ok(Objects {
            is_new: true,
            ..objects
        })
    }

    /// Takes the mirror away, if there is one; who reads in it fails, and asks anew.
    fn take_away(&self) -> Result<(), GitError> {
        let scratch = self.store.scratch()?;
        match fs::rename(&self.path, scratch.path().join("mirror")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(GitError::io(&self.path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Waits until nobody adds to the mirror.
    fn lock(&self, watch: &Watch<'_>) -> Result<Lock, GitError> {
        let name = format!("{FOLDER}-{}", self.name);
        loop {
            if let Some(lock) = self.store.try_lock(&name, false)? {
                return Ok(lock);
            }
            watch.pause(super::watch::TICK)?;
        }
    }
}

fn make_bare(place: &Path, largest: u64) -> gix::Result<gix::Repository> {
    let options = gix::create::Options::default();
    let open = fetch::open_options(largest);
    let made = gix::ThreadSafeRepository::init_opts(place, gix::create::Kind::Bare, options, open)?;
    Ok(made.to_thread_local())
}
