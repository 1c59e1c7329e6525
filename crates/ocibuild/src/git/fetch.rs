//! Objects of one repository, from its server into a repository on disk: the one that a
//! checkout keeps, or a mirror that has served others before. One commit comes without
//! history, where the server knows how to.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gix::clone::PrepareFetch;
use gix::progress::tree;
use gix::refs::transaction::PreviousValue;
use gix::remote::fetch::{Shallow, Tags};
use gix::remote::{Direction, ref_map};

use super::error::{GitError, public_url};
use super::refs::{Wanted, commit_of, commit_with_prefix};
use super::remote::Endpoint;
use super::watch::Watch;

const ONE_COMMIT: Shallow = Shallow::DepthAtRemote(std::num::NonZeroU32::MIN);
/// Everything that a repository shows.
const WHOLE: [&str; 2] = [
    "+refs/heads/*:refs/all/heads/*",
    "+refs/tags/*:refs/all/tags/*",
];

/// Makes a repository of its own around `dest` and fetches into it.
pub(super) fn alone(
    endpoint: &Endpoint,
    wanted: &Wanted,
    dest: &Path,
    watch: &Watch<'_>,
) -> Result<(gix::Repository, gix::ObjectId), GitError> {
    watch.during(|interrupt, progress| {
        let run = Run {
            endpoint,
            interrupt,
            progress,
        };
        let clone = || prepare(endpoint, dest).map_err(|source| run.failed(source));
        let fetch = |mut clone: PrepareFetch| {
            let fetched = clone.fetch_only(progress.add_child("fetch"), interrupt);
            fetched.map(|(repository, _)| repository)
        };
        let history = || -> Result<_, GitError> {
            let repository = fetch(clone()?).map_err(|source| run.failed(source))?;
            let commit = run.in_history(&repository, wanted)?;
            detach_head(&repository, commit, endpoint)?;
            Ok((repository, commit))
        };
        let Some(revision) = wanted.revision() else {
            return history();
        };
        let single = clone()?
            .with_shallow(ONE_COMMIT)
            .with_revision(Some(revision));
        match fetch(single.map_err(|source| run.failed(source))?) {
            Ok(repository) => {
                let commit = repository.head_id().map(gix::Id::detach);
                let commit = commit.map_err(|source| run.failed(source))?;
                Ok((repository, commit))
            }
            Err(error) if run.may_be_refused(wanted, &error) => history(),
            Err(error) => Err(run.failed(error)),
        }
    })
}

/// Fetches what `repository`, a bare one, does not have yet, and gives the commit.
pub(super) fn into(
    repository: &gix::Repository,
    endpoint: &Endpoint,
    wanted: &Wanted,
    watch: &Watch<'_>,
) -> Result<gix::ObjectId, GitError> {
    watch.during(|interrupt, progress| {
        let run = Run {
            endpoint,
            interrupt,
            progress,
        };
        let Some(revision) = wanted.revision() else {
            return run.history(repository, wanted);
        };
        let name = place_of(&revision);
        match run.receive(repository, &[&format!("+{revision}:{name}")], ONE_COMMIT) {
            Ok(()) => commit_of(repository, &name).map_err(|source| run.failed(source)),
            Err(error) if run.may_be_refused(wanted, &error) => run.history(repository, wanted),
            Err(error) => Err(run.failed(error)),
        }
    })
}

/// Gives the reference under which a mirror keeps what was fetched by a name. Names of one
/// time can be folders of another, so they are not used as they are.
fn place_of(revision: &str) -> String {
    format!(
        "refs/got/{}",
        ocibuild_registry::Digest::sha256(revision.as_bytes()).hex()
    )
}

/// One fetch.
struct Run<'a> {
    endpoint: &'a Endpoint,
    interrupt: &'a AtomicBool,
    progress: &'a tree::Root,
}

impl Run<'_> {
    fn receive(
        &self,
        repository: &gix::Repository,
        refspecs: &[&str],
        depth: Shallow,
    ) -> gix::Result {
        let remote = repository
            .remote_at(address_of(self.endpoint).as_str())?
            .with_fetch_tags(Tags::None)
            .with_refspecs(refspecs.iter().copied(), Direction::Fetch)?;
        let transport = super::transport::connect(self.endpoint)?;
        let mut connection = remote.to_connection_with_transport(transport);
        self.endpoint.configure_connection(&mut connection);
        let prepared = connection.prepare_fetch(
            self.progress.add_child("fetch"),
            ref_map::Options::default(),
        )?;
        let received = prepared.with_shallow(depth);
        received.receive(self.progress.add_child("fetch"), self.interrupt)?;
        Ok(())
    }

    /// Fetches every branch and tag with all its history.
    fn history(
        &self,
        repository: &gix::Repository,
        wanted: &Wanted,
    ) -> Result<gix::ObjectId, GitError> {
        let failed = |source| self.failed(source);
        let depth = match repository.is_shallow().map_err(failed)? {
            true => Shallow::undo(),
            false => Shallow::NoChange,
        };
        tracing::debug!(
            url = public_url(&self.endpoint.url),
            "fetching the whole history"
        );
        self.receive(repository, &WHOLE, depth).map_err(failed)?;
        self.in_history(repository, wanted)
    }

    fn in_history(
        &self,
        repository: &gix::Repository,
        wanted: &Wanted,
    ) -> Result<gix::ObjectId, GitError> {
        let url = || public_url(&self.endpoint.url);
        let missing = |reference: String| GitError::ReferenceNotFound {
            url: url(),
            reference,
            near: Vec::new(),
        };
        match wanted {
            Wanted::Abbreviated(prefix) => {
                let found = commit_with_prefix(repository, prefix);
                let mut found = found.map_err(|source| self.failed(source))?;
                match (found.pop(), found.is_empty()) {
                    (Some(only), true) => Ok(only),
                    (None, _) => Err(missing(prefix.clone())),
                    (Some(last), false) => Err(GitError::AmbiguousCommit {
                        url: url(),
                        prefix: prefix.clone(),
                        commits: found
                            .into_iter()
                            .chain([last])
                            .map(|id| id.to_string())
                            .collect(),
                    }),
                }
            }
            Wanted::Commit(id) => {
                let found = repository
                    .find_object(*id)
                    .map_err(|_| missing(id.to_string()))?;
                let commit = found
                    .peel_to_commit()
                    .map_err(|_| missing(id.to_string()))?;
                Ok(commit.id)
            }
            Wanted::Default | Wanted::Reference(_) => {
                Err(missing(wanted.revision().unwrap_or_default()))
            }
        }
    }

    /// Tells whether a server may have refused to serve a commit that no reference names; it
    /// may still be in the history, so the whole of it is the second try.
    fn may_be_refused(&self, wanted: &Wanted, error: &gix::Error) -> bool {
        matches!(wanted, Wanted::Commit(_))
            && !error.can_retry_lenient()
            && !self.endpoint.budget.is_broken()
            && !self.interrupt.load(Ordering::Relaxed)
    }

    fn failed(&self, source: gix::Error) -> GitError {
        match self.interrupt.load(Ordering::Relaxed) {
            true => GitError::Cancelled,
            false => GitError::Fetch {
                url: public_url(&self.endpoint.url),
                source: Box::new(source),
            },
        }
    }
}

/// Gives how repositories are opened: no configuration of the machine is read, and a small
/// pack cannot hold an object that fills the memory of any machine.
pub(super) fn open_options(largest_object: u64) -> gix::open::Options {
    let object_limit = format!("gitoxide.objects.allocLimit={largest_object}");
    gix::open::Options::isolated()
        .config_overrides([object_limit])
        .with(gix::sec::Trust::Full)
}

/// Gives the URL of a repository as git reads it.
fn address_of(endpoint: &Endpoint) -> String {
    let url = &endpoint.url;
    super::address::text_of(url, super::address::counts_from_home(url))
}

fn prepare(endpoint: &Endpoint, dest: &Path) -> gix::Result<PrepareFetch> {
    let clone = PrepareFetch::new(
        address_of(endpoint).as_str(),
        dest,
        gix::create::Kind::WithWorktree,
        gix::create::Options::default(),
        open_options(endpoint.budget.object()),
    )?;
    let endpoint = endpoint.clone();
    Ok(clone.configure_connection(move |connection| {
        *connection.transport_mut() = super::transport::connect(&endpoint)?;
        endpoint.configure_connection(connection);
        Ok(())
    }))
}

fn detach_head(
    repository: &gix::Repository,
    id: gix::ObjectId,
    endpoint: &Endpoint,
) -> Result<(), GitError> {
    let detached = repository.reference("HEAD", id, PreviousValue::Any, "checkout");
    detached.map_err(|source| GitError::Checkout {
        url: public_url(&endpoint.url),
        what: "HEAD".to_owned(),
        source: Some(Box::new(source)),
    })?;
    Ok(())
}
