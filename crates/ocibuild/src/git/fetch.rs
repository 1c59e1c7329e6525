//! One repository: its commit is fetched without history and written out. All of gix's
//! clone machinery is driven from here.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use gix::clone::{PrepareCheckout, PrepareFetch};
use gix::progress::tree;
use gix::refs::transaction::PreviousValue;
use gix::remote::fetch::Shallow;

use super::Progress;
use super::error::{GitError, public_url};
use super::limits::Budget;
use super::refs::Wanted;
use super::remote::Endpoint;
use crate::Cancel;

const ONE_COMMIT: Shallow = Shallow::DepthAtRemote(std::num::NonZeroU32::MIN);
const TICK: Duration = Duration::from_millis(50);

/// A repository whose tree is on disk.
pub(super) struct Fetched {
    pub(super) repository: gix::Repository,
    pub(super) commit: gix::ObjectId,
    /// When it was committed, in seconds since 1970.
    pub(super) time: i64,
}

/// Fetches `wanted` into the empty directory `dest` and checks it out.
pub(super) fn check_out(
    endpoint: &Endpoint,
    wanted: &Wanted,
    dest: &Path,
    watch: &Watch<'_>,
) -> Result<Fetched, GitError> {
    let url = public_url(&endpoint.url);
    watch.during(|interrupt, progress| {
        let mut checkout = fetch(endpoint, wanted, dest, interrupt, progress)?;
        measure(checkout.repo(), &endpoint.budget)
            .map_err(|source| not_checked_out(&url, "the tree", Some(source)))?;
        let (repository, outcome) = checkout
            .main_worktree(progress.add_child("check out"), interrupt)
            .map_err(|source| not_checked_out(&url, "the tree", Some(source)))?;
        if interrupt.load(Ordering::Relaxed) {
            return Err(GitError::Cancelled);
        }
        if let Some(failed) = outcome.errors.into_iter().next() {
            let path = failed.path.to_string();
            return Err(not_checked_out(&url, &path, Some(failed.error)));
        }
        if let Some(collision) = outcome.collisions.first() {
            return Err(not_checked_out(&url, &collision.path.to_string(), None));
        }
        let commit = repository
            .head_id()
            .map_err(|source| not_checked_out(&url, "HEAD", Some(source)))?
            .detach();
        let time =
            committed(&repository).map_err(|source| not_checked_out(&url, "HEAD", Some(source)))?;
        Ok(Fetched {
            repository,
            commit,
            time,
        })
    })
}

fn committed(repository: &gix::Repository) -> gix::Result<i64> {
    Ok(repository.head_commit()?.time()?.seconds)
}

/// Counts what the tree would put on disk. Trees may name one another many times, so
/// that a few objects stand for more files than any disk holds.
fn measure(repository: &gix::Repository, budget: &Budget) -> gix::Result {
    let mut folders = vec![repository.head_commit()?.tree_id()?.detach()];
    while let Some(folder) = folders.pop() {
        let tree = repository.find_tree(folder)?;
        for entry in tree.iter() {
            let entry = entry?;
            let id = entry.object_id();
            let size = match entry.mode().is_blob_or_symlink() {
                true => repository.find_header(id)?.size(),
                false => 0,
            };
            budget.add_file(size).map_err(gix::Error::from_error)?;
            if entry.mode().is_tree() {
                folders.push(id);
            }
        }
    }
    Ok(())
}

fn not_checked_out(url: &str, what: &str, source: Option<gix::Error>) -> GitError {
    GitError::Checkout {
        url: url.to_owned(),
        what: what.to_owned(),
        source: source.map(Box::new),
    }
}

fn fetch(
    endpoint: &Endpoint,
    wanted: &Wanted,
    dest: &Path,
    interrupt: &AtomicBool,
    progress: &tree::Root,
) -> Result<PrepareCheckout, GitError> {
    let failed = |source| match interrupt.load(Ordering::Relaxed) {
        true => GitError::Cancelled,
        false => GitError::Fetch {
            url: public_url(&endpoint.url),
            source: Box::new(source),
        },
    };
    let clone = || prepare(endpoint, dest).map_err(failed);
    let run = |mut clone: PrepareFetch| {
        clone
            .fetch_then_checkout(progress.add_child("fetch"), interrupt)
            .map(|(checkout, _)| checkout)
    };
    let single = clone()?
        .with_shallow(ONE_COMMIT)
        .with_revision(Some(wanted.revision()))
        .map_err(failed)?;
    match (run(single), wanted) {
        (Ok(checkout), _) => Ok(checkout),
        // Servers may refuse to serve a commit that no reference names; it may still be
        // in the history, so the whole of it is the second try.
        (Err(error), Wanted::Commit(id))
            if !error.can_retry_lenient()
                && !endpoint.budget.is_broken()
                && !interrupt.load(Ordering::Relaxed) =>
        {
            tracing::debug!(%error, commit = %id, "fetching the whole history");
            let checkout = run(clone()?).map_err(failed)?;
            detach_head(checkout.repo(), *id, endpoint)?;
            Ok(checkout)
        }
        (Err(error), _) => Err(failed(error)),
    }
}

fn prepare(endpoint: &Endpoint, dest: &Path) -> gix::Result<PrepareFetch> {
    // A small pack can hold an object that fills the memory of any machine.
    let object_limit = format!("gitoxide.objects.allocLimit={}", endpoint.budget.object());
    let clone = PrepareFetch::new(
        endpoint.url.as_str(),
        dest,
        gix::create::Kind::WithWorktree,
        gix::create::Options::default(),
        gix::open::Options::isolated().config_overrides([object_limit]),
    )?;
    let endpoint = endpoint.clone();
    Ok(clone.configure_connection(move |connection| {
        *connection.transport_mut() = super::transport::connect(&endpoint)?;
        // Otherwise gix sets options of its own.
        connection.set_transport_options(Box::new(endpoint.transport_options()));
        // Otherwise a server that asks for a password makes gix run credential helpers.
        connection.set_credentials(|_| Ok(None));
        Ok(())
    }))
}

fn detach_head(
    repository: &gix::Repository,
    id: gix::ObjectId,
    endpoint: &Endpoint,
) -> Result<(), GitError> {
    let missing = || GitError::ReferenceNotFound {
        url: public_url(&endpoint.url),
        reference: id.to_string(),
        near: Vec::new(),
    };
    repository
        .find_object(id)
        .map_err(|_| missing())?
        .peel_to_commit()
        .map_err(|_| missing())?;
    repository
        .reference("HEAD", id, PreviousValue::Any, "checkout")
        .map_err(|source| not_checked_out(&public_url(&endpoint.url), "HEAD", Some(source)))?;
    Ok(())
}

/// The outside world of a running fetch: who and what may end it, and who wants to know
/// how far it is.
pub(super) struct Watch<'a> {
    pub(super) cancel: &'a Cancel,
    pub(super) progress: &'a (dyn Fn(Progress) + Sync),
    pub(super) budget: &'a Budget,
}

impl Watch<'_> {
    pub(super) fn check(&self) -> Result<(), GitError> {
        match self.cancel.is_cancelled() {
            true => Err(GitError::Cancelled),
            false => Ok(()),
        }
    }

    /// Waits, and ends early when the build is cancelled.
    pub(super) fn pause(&self, time: Duration) -> Result<(), GitError> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            std::thread::sleep(TICK.min(time));
        }
        self.check()
    }

    /// Runs `work` while another thread hands on its progress and raises its interrupt flag.
    fn during<T>(
        &self,
        work: impl FnOnce(&AtomicBool, &tree::Root) -> Result<T, GitError>,
    ) -> Result<T, GitError> {
        let interrupt = AtomicBool::new(false);
        let root = tree::Root::new();
        let (done, is_done) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (interrupt, root) = (&interrupt, &root);
            scope.spawn(move || {
                while is_done.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    let ends = self.cancel.is_cancelled() || self.budget.excess().is_some();
                    interrupt.fetch_or(ends, Ordering::Relaxed);
                    self.report(root);
                }
            });
            let result = work(interrupt, root);
            drop(done);
            result
        })
    }

    fn report(&self, root: &tree::Root) {
        let mut tasks = Vec::new();
        root.sorted_snapshot(&mut tasks);
        for (_, task) in tasks {
            if let Some(value) = task.progress {
                (self.progress)(Progress {
                    task: task.name,
                    current: value.step.load(Ordering::Relaxed) as u64,
                    total: value.done_at.map(|total| total as u64),
                });
            }
        }
    }
}
