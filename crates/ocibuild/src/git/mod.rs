//! Repository URL, reference and subdirectory to a tree at one pinned commit.
//!
//! Enters: a [`GitSource`]. Leaves: files below a directory of ours, and the id of the
//! commit that they belong to. Repositories and servers are hostile: no program is run (no
//! hooks, filters, helpers; `ssh` where it is given), no configuration of the machine is
//! read, nothing is written outside the destination, and a token goes to the one server
//! that it was given for and is written nowhere. Files that are kept with Git LFS are loaded
//! too. With a store, what is fetched stays in mirrors there.
//!
//! Protocol: gitprotocol-v2 over smart HTTP; older servers answer in version 0.

mod address;
mod error;
mod fetch;
mod filters;
mod lfs;
mod limits;
mod mirror;
mod policy;
mod refs;
mod remote;
mod session;
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

use url::Url;

use crate::Cancel;
use crate::content::ContentStore;
use remote::{Credentials, Means};
use session::{Session, Target};
use ssh::Way;
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
