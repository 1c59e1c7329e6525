//! Repository URL, reference and subdirectory to a tree at one pinned commit.
//!
//! Enters: a [`GitSource`]. Leaves: files below a directory of ours, and the id of the
//! commit that they belong to. Repositories and servers are hostile: no program is run
//! (no hooks, filters, helpers; ssh where it is given), no configuration of the machine is read, nothing
//! is written outside the destination, and a token goes to the one server that it was
//! given for and is written nowhere. Files that are kept with Git LFS are loaded too. With
//! a store, what is fetched stays in mirrors there.
//!
//! Protocol: gitprotocol-v2 over smart HTTP; older servers answer in version 0.

mod address;
mod error;
mod fetch;
mod lfs;
mod limits;
mod mirror;
mod policy;
mod refs;
mod remote;
mod snapshot;
mod source;
mod ssh;
mod submodules;
mod transport;
mod tree;
mod watch;
mod worktree;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::Cancel;
use crate::content::ContentStore;
use crate::net::Refused;
use mirror::Mirror;
use refs::Found;
use remote::{Credentials, Endpoint, Means};
use ssh::{Failure, Way};
use watch::Watch;

pub use error::GitError;
pub(crate) use error::{host_and_port, public_url};
pub(crate) use limits::Budget;
pub use limits::{Excess, Limits};
pub(crate) use policy::is_loopback;
pub use policy::{Forbidden, HostPattern, InvalidHostPattern, Policy};
pub(crate) use remote::{Tls, configure};
pub use snapshot::{GitSnapshot, SnapshotAnswer};
pub use source::GitSource;
pub(crate) use source::is_commit;
pub use ssh::Ssh;

const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// A tree and the commit that it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// Full id of the commit.
    pub commit: String,
    /// When it was committed, in seconds since 1970.
    pub time: i64,
    /// The directory that the source names: the destination or a directory in it.
    pub tree: PathBuf,
}

/// How far one part of a checkout has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, such as `read pack`.
    pub task: String,
    /// Steps, bytes or objects so far.
    pub current: u64,
    /// All of them, where that is known.
    pub total: Option<u64>,
}

/// Fetches one commit, without history, into `dest`, which must be an empty directory or
/// not exist; it may hold part of a tree after an error. Nothing is kept beside it: see
/// [`Client`] for what builds use.
///
/// ```no_run
/// use ocibuild::{Cancel, git};
///
/// let source = git::GitSource::parse("https://github.com/owner/app.git#main:service")?;
/// let (policy, cancel) = (git::Policy::default(), Cancel::new());
/// let done = git::checkout(&source, &policy, "context".as_ref(), &cancel, &|_| {})?;
/// println!("{} in {}", done.commit, done.tree.display());
/// # Ok::<(), git::GitError>(())
/// ```
pub fn checkout(
    source: &GitSource,
    policy: &Policy,
    dest: &Path,
    cancel: &Cancel,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Checkout, GitError> {
    Client::new(policy.clone()).checkout(source, dest, cancel, progress)
}

/// How repositories are checked out: under which rules, and with what in hand.
#[derive(Debug, Clone, Default)]
pub struct Client {
    policy: Policy,
    store: Option<ContentStore>,
    ssh: Option<Ssh>,
}

impl Client {
    /// Makes one that keeps nothing.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            store: None,
            ssh: None,
        }
    }

    /// Keeps what is fetched in mirrors in a store, and fetches only what they lack.
    #[must_use]
    pub fn mirrors(mut self, store: ContentStore) -> Self {
        self.store = Some(store);
        self
    }

    /// Takes repositories over ssh too.
    #[must_use]
    pub fn ssh(mut self, ssh: Ssh) -> Self {
        self.ssh = Some(ssh);
        self
    }

    /// Checks out one commit into `dest`, which must be an empty directory or not exist; it
    /// may hold part of a tree after an error.
    ///
    /// Files get mode 0644 or 0755 and directories 0755, whatever the umask is. Blocks, so
    /// an asynchronous program calls it where blocking is allowed; `progress` is called from
    /// another thread. A cancelled checkout, and one that has reached a limit of the policy,
    /// ends at once while data arrives, and within a minute when the server has fallen silent.
    pub fn checkout(
        &self,
        source: &GitSource,
        dest: &Path,
        cancel: &Cancel,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Checkout, GitError> {
        let url = repository_url(source)?;
        if let Some(reference) = &source.reference {
            source::check_reference(reference)?;
        }
        tree::prepare_destination(dest)?;
        let budget = Arc::new(Budget::new(self.policy.limits));
        let session = Session {
            means: Means {
                credentials: credentials(source, &url)?,
                tls: Tls::default(),
                policy: &self.policy,
                budget: budget.clone(),
                ssh: self.ssh.clone().map(|ssh| {
                    let addresses = self.policy.permitted_addresses();
                    Way::new(ssh, addresses, cancel.clone())
                }),
            },
            // What is kept in `.git` comes from the server and is nobody else's.
            store: self.store.as_ref().filter(|_| !source.keep_git_dir),
            watch: Watch {
                cancel,
                progress,
                budget: &budget,
            },
            recurse: source.submodules,
            lfs: source.lfs,
        };
        let wanted = Target::Name(source.reference.as_deref());
        let (commit, time) = session.check_out_repository(&url, wanted, dest, &mut Vec::new())?;
        check_commit(source, &url, &commit.to_string())?;
        if !source.keep_git_dir {
            tree::remove_git_dirs(dest)?;
        }
        tree::normalize_modes(dest)?;
        let tree = match &source.subdir {
            Some(subdir) => tree::resolve_subdir(dest, subdir)?,
            None => dest.to_owned(),
        };
        Ok(Checkout {
            commit: commit.to_string(),
            time,
            tree,
        })
    }
}

fn check_commit(source: &GitSource, url: &Url, found: &str) -> Result<(), GitError> {
    match &source.checksum {
        Some(expected) if !found.starts_with(&expected.to_ascii_lowercase()) => {
            Err(GitError::Checksum {
                url: public_url(url),
                expected: expected.clone(),
                found: found.to_owned(),
            })
        }
        _ => Ok(()),
    }
}

fn repository_url(source: &GitSource) -> Result<Url, GitError> {
    let url = address::parse(&source.url)?;
    let from_home = address::is_from_home(&source.url);
    let bare = address::bare(url.clone(), false);
    let is_bare = bare == url && (url.scheme() == "ssh" || public_url(&url) == url.as_str());
    match is_bare {
        true => Ok(address::bare(url, from_home)),
        false => Err(GitError::InvalidUrl {
            url: public_url(&url),
            reason: "user information, query and fragment are not part of it".to_owned(),
        }),
    }
}

/// A token is for HTTP: ssh has keys.
fn credentials(source: &GitSource, url: &Url) -> Result<Option<Credentials>, GitError> {
    let token = source.token.as_ref().filter(|_| url.scheme() != "ssh");
    token
        .map(|token| Credentials::new(url, source.username.as_deref(), token))
        .transpose()
}

/// Which commit of a repository to take: named by a user, or pinned by a parent repository.
#[derive(Clone, Copy)]
enum Target<'a> {
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
struct Session<'a> {
    means: Means<'a>,
    /// Where mirrors are.
    store: Option<&'a ContentStore>,
    watch: Watch<'a>,
    recurse: bool,
    lfs: bool,
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
    fn check_out_repository(
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
                url: &error::public_url(&endpoint.url),
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
            url: &error::public_url(&endpoint.url),
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
    fn retry<T>(
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
        let url = error::public_url(url);
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
