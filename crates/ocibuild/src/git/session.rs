//! One checkout: a repository, its large files, its submodules, and what is tried again.

use std::path::Path;
use std::time::Duration;

use url::Url;

use super::error::{GitError, public_url};
use super::mirror::Mirror;
use super::policy::Forbidden;
use super::refs::{self, Found};
use super::remote::{Endpoint, Means};
use super::ssh::{Failure, Way};
use super::watch::Watch;
use super::{fetch, lfs, submodules, tree, worktree};
use crate::content::ContentStore;
use crate::net::Refused;

const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Which commit of a repository to take: named by a user, or pinned by a parent repository.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Name(Option<&'a str>),
    Commit(gix::ObjectId),
}

impl Target<'_> {
    /// Gives the full id, where that is what is known of it.
    fn commit(&self) -> Option<gix::ObjectId> {
        match self {
            Self::Name(name) => name.and_then(refs::full_commit),
            Self::Commit(id) => Some(*id),
        }
    }
}

/// What stays the same for a repository and all its submodules.
pub(super) struct Session<'a> {
    pub(super) means: Means<'a>,
    /// Where mirrors are.
    pub(super) store: Option<&'a ContentStore>,
    pub(super) watch: Watch<'a>,
    pub(super) recurse: bool,
    pub(super) lfs: bool,
}

/// A repository whose files are on disk.
struct Written {
    endpoint: Endpoint,
    repository: gix::Repository,
    commit: gix::ObjectId,
    time: i64,
}

impl Session<'_> {
    /// Checks out one repository and what is nested in it; `parents` are the URLs above it.
    pub(super) fn check_out_repository(
        &self,
        url: &Url,
        target: Target<'_>,
        dest: &Path,
        parents: &mut Vec<Url>,
    ) -> Result<(gix::ObjectId, i64), GitError> {
        let mirror = self.mirror(url);
        let written = match &mirror {
            Some(mirror) => self.write_from(mirror, url, target, dest)?,
            None => self.write_alone(url, target, dest)?,
        };
        if self.lfs {
            lfs::replace_pointers(self, &written.endpoint, mirror.as_ref(), dest)?;
        }
        if self.recurse {
            parents.push(url.clone());
            for module in submodules::list(&written.repository, written.commit, parents)? {
                self.check_out_submodule(&module, dest, parents)?;
            }
            parents.pop();
        }
        Ok((written.commit, written.time))
    }

    fn mirror(&self, url: &Url) -> Option<Mirror> {
        let is_public = self.means.is_anonymous(url);
        Some(Mirror::of(self.store?, url, is_public, self.means.policy))
    }

    /// Writes a repository that is in a mirror, or is then.
    fn write_from(
        &self,
        mirror: &Mirror,
        url: &Url,
        target: Target<'_>,
        dest: &Path,
    ) -> Result<Written, GitError> {
        let (endpoint, found) = match self.known(mirror, url, target)? {
            Some(known) => known,
            None => self.locate(url, target)?,
        };
        loop {
            let bring = || mirror.bring(&endpoint, &found, &self.watch);
            let objects = self.retry(url, bring)?;
            let files = worktree::Files {
                repository: &objects.repository,
                commit: objects.commit,
                url: &public_url(&endpoint.url),
            };
            let wrote = files.write(dest, &self.watch);
            match wrote.map_err(|error| self.reason(url, error)) {
                Ok(time) => {
                    return Ok(Written {
                        endpoint,
                        commit: objects.commit,
                        repository: objects.repository,
                        time,
                    });
                }
                Err(error) if error.is_unreadable() && !objects.is_new => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "a mirror is broken and is made again");
                    mirror.discard(&self.watch)?;
                    tree::clear(dest)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives a commit that everybody may see and that is in its mirror: nobody is asked.
    fn known(
        &self,
        mirror: &Mirror,
        url: &Url,
        target: Target<'_>,
    ) -> Result<Option<(Endpoint, Found)>, GitError> {
        let (Some(id), Some(origin)) = (target.commit(), mirror.public_origin()) else {
            return Ok(None);
        };
        self.means.policy.check(url)?;
        let endpoint = self.means.endpoint(&origin)?;
        let known = mirror.find(id, self.means.budget.object());
        Ok(known.map(|_| (endpoint, id.into())))
    }

    /// Asks the server what a name means there.
    fn locate(&self, url: &Url, target: Target<'_>) -> Result<(Endpoint, Found), GitError> {
        let endpoint = self.retry(url, || self.means.discover(url))?;
        let found = match target {
            Target::Name(name) => self.retry(url, || refs::resolve(&endpoint, name))?,
            Target::Commit(id) => id.into(),
        };
        if endpoint.is_unasked() && target.commit().is_some() {
            self.retry(url, || refs::let_in(&endpoint))?;
        }
        Ok((endpoint, found))
    }

    /// Writes a repository that is kept nowhere else.
    fn write_alone(&self, url: &Url, target: Target<'_>, dest: &Path) -> Result<Written, GitError> {
        let (endpoint, found) = self.locate(url, target)?;
        let fetch = || fetch::alone(&endpoint, &found.wanted, dest, &self.watch);
        let (repository, commit) = self.retry(url, fetch)?;
        let files = worktree::Files {
            repository: &repository,
            commit,
            url: &public_url(&endpoint.url),
        };
        let time = files.write(dest, &self.watch);
        let time = time.map_err(|error| self.reason(url, error))?;
        Ok(Written {
            endpoint,
            repository,
            commit,
            time,
        })
    }

    fn check_out_submodule(
        &self,
        module: &submodules::Submodule,
        parent: &Path,
        parents: &mut Vec<Url>,
    ) -> Result<(), GitError> {
        let inside = |source| GitError::Submodule {
            path: module.path.clone(),
            source: Box::new(source),
        };
        let dest = tree::submodule_destination(parent, &module.path).map_err(inside)?;
        self.check_out_repository(&module.url, Target::Commit(module.commit), &dest, parents)
            .map_err(inside)?;
        Ok(())
    }

    /// Repeats what the network or a busy server has made fail.
    pub(super) fn retry<T>(
        &self,
        url: &Url,
        mut attempt: impl FnMut() -> Result<T, GitError>,
    ) -> Result<T, GitError> {
        let mut attempt = || attempt().map_err(|error| self.reason(url, error));
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            self.watch.check()?;
            self.means.budget.forget_broken();
            match attempt() {
                Err(error) if self.may_pass(&error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "trying again");
                }
                result => return result,
            }
            self.watch.pause(pause)?;
            pause *= 2;
        }
        self.watch.check()?;
        attempt()
    }

    /// Tells whether trying again may help.
    fn may_pass(&self, error: &GitError) -> bool {
        let is_ours = matches!(
            error,
            GitError::TooMuch { .. } | GitError::Forbidden { .. } | GitError::Cancelled
        );
        error.is_transient() || (self.means.budget.is_broken() && !is_ours)
    }

    /// Says why something failed, where a rule of ours has made it fail: the error then
    /// comes out of the depths of a client as a broken connection.
    fn reason(&self, url: &Url, error: GitError) -> GitError {
        if self.watch.cancel.is_cancelled() {
            return GitError::Cancelled;
        }
        let url = public_url(url);
        if let Some(excess) = self.means.budget.excess() {
            return GitError::TooMuch { url, excess };
        }
        let is_protocol = matches!(
            error,
            GitError::ListReferences { .. } | GitError::Fetch { .. }
        );
        let failure = self.means.ssh.as_ref().and_then(Way::take_failure);
        let refused = match failure.filter(|_| is_protocol) {
            Some(Failure::Said(said)) => return GitError::Ssh { url, said },
            Some(Failure::Refused(refused)) => Some(refused),
            None => Refused::among(&error),
        };
        match refused.map(Forbidden::Address) {
            Some(reason) => GitError::Forbidden { url, reason },
            None => error,
        }
    }
}
