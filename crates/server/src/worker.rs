//! The worker: claims tasks, as many as may run at once, and sees each to its end.
//!
//! A claim is a lease that `heartbeat` prolongs; who loses it stops. Whatever happens to a
//! build, its task ends with a reason, in the table and as the last line of its log. Only a
//! service that shuts down gives its tasks back.

mod log;
mod process;
mod redact;

use std::path::Path;
use std::sync::Arc;

use ocibuild_registry::Secret;
use ocibuild_store::{Claim, Lease, Outcome, StoreError, Task};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::log::TaskLog;
use self::process::{Stop, Verdict, WorkerProgram};
use self::redact::Redactor;
use crate::Options;
use crate::app::App;
use crate::spec::{BuildSpec, GitSource};

/// The most that the table keeps of a reason.
const REASON_BYTES: usize = 4096;

/// Claims tasks and runs their builds.
#[derive(Debug)]
pub(crate) struct Worker {
    app: Arc<App>,
    options: Options,
    /// The address of the embedded registry, if there is one.
    registry: Option<std::net::SocketAddr>,
}

impl Worker {
    pub(crate) fn new(
        app: Arc<App>,
        options: Options,
        registry: Option<std::net::SocketAddr>,
    ) -> Self {
        Self {
            app,
            options,
            registry,
        }
    }

    /// Works until `shutdown`, and until every build has been stopped after it.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let worker = Arc::new(self);
        let builds = TaskTracker::new();
        let recovery = worker.recover_abandoned(&shutdown);
        let claims = worker.claim_all(&builds, &shutdown);
        tokio::join!(recovery, claims);
        builds.close();
        builds.wait().await;
    }

    /// Claims one task after the other as long as there is room for it.
    async fn claim_all(self: &Arc<Self>, builds: &TaskTracker, shutdown: &CancellationToken) {
        let room = Arc::new(Semaphore::new(self.app.config.limits.max_builds));
        loop {
            let place = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Ok(place) = Arc::clone(&room).acquire_owned() => place,
            };
            match self
                .app
                .store
                .claim(&self.options.replica, self.options.timing.lease)
                .await
            {
                Ok(Some(claim)) => {
                    let (worker, shutdown) = (Arc::clone(self), shutdown.clone());
                    builds.spawn(async move { worker.work_on(claim, place, shutdown).await });
                    continue;
                }
                Ok(None) => {}
                Err(error) => log_store_error("claim a task", &error),
            }
            drop(place);
            tokio::select! {
                () = self.app.queued.notified() => {}
                () = tokio::time::sleep(self.options.timing.poll) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Puts tasks back whose worker, here or on another replica, has disappeared.
    async fn recover_abandoned(&self, shutdown: &CancellationToken) {
        let max_attempts = self.app.config.limits.max_attempts;
        loop {
            match self.app.store.recover(max_attempts).await {
                Ok(recovered) => {
                    for id in &recovered.requeued {
                        tracing::warn!(task = %id, "an abandoned task waits again");
                    }
                    for id in &recovered.failed {
                        tracing::error!(task = %id, "a task was abandoned too often and failed");
                    }
                    if !recovered.requeued.is_empty() {
                        self.app.queued.notify_one();
                    }
                }
                Err(error) => log_store_error("recover abandoned tasks", &error),
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.timing.lease / 2) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Sees one task to its end, in the place that it was given.
    async fn work_on(
        &self,
        claim: Claim,
        _place: OwnedSemaphorePermit,
        shutdown: CancellationToken,
    ) {
        let Claim {
            task,
            dockerfile,
            lease,
        } = claim;
        tracing::info!(task = %task.id, attempt = task.attempts, "build begins");
        let began = Instant::now();
        let mut log = TaskLog::open(&self.app.logs, &task.id, self.app.config.limits.log_bytes);
        let verdict = self
            .build(&task, dockerfile, &lease, &mut log, &shutdown)
            .await;
        let outcome = match verdict {
            Verdict::Completed { result, commit } => Outcome::Completed {
                digest: result.digest.to_string(),
                commit,
            },
            Verdict::Failed { reason, commit } => {
                let reason = log.redact(&reason);
                Outcome::Failed {
                    reason: shortened(&reason, REASON_BYTES).to_owned(),
                    commit,
                }
            }
            Verdict::Stopped(Stop::LeaseLost) => {
                tracing::warn!(task = %task.id, "the lease was lost; another worker has the task");
                return;
            }
            Verdict::Stopped(_) => {
                log.line("The service is shutting down; this task waits again");
                return self.release(&lease).await;
            }
        };
        log.end(&outcome, began.elapsed());
        tracing::info!(task = %task.id, ?outcome, "build ended");
        self.finish(&lease, &outcome, &shutdown).await;
    }

    /// Runs the build process of one task, with everything around it.
    async fn build(
        &self,
        task: &Task,
        dockerfile: Option<String>,
        lease: &Lease,
        log: &mut TaskLog,
        shutdown: &CancellationToken,
    ) -> Verdict {
        let spec = match self.spec(task, dockerfile).await {
            Ok(spec) => spec,
            Err(reason) => {
                return Verdict::Failed {
                    reason,
                    commit: None,
                };
            }
        };
        log.hide(Redactor::new(spec.secrets()));
        log.begin(task, &spec);
        if let Err(error) = tokio::fs::create_dir_all(&spec.scratch).await {
            let reason = format!("cannot create the folder of the build: {error}");
            return Verdict::Failed {
                reason,
                commit: None,
            };
        }
        let program = WorkerProgram {
            path: &self.options.worker_program,
            arguments: &self.options.worker_arguments,
            environment: &self.app.config.worker_environment,
            grace: self.options.timing.grace,
        };
        let verdict = process::run(&program, &spec, log, self.stopped(lease, shutdown)).await;
        remove(&spec.scratch).await;
        verdict
    }

    /// Says what the build process has to know.
    async fn spec(&self, task: &Task, dockerfile: Option<String>) -> Result<BuildSpec, String> {
        let config = &self.app.config;
        let google_key = match &config.targets.google {
            Some(google) => tokio::fs::read_to_string(&google.key_file)
                .await
                .ok()
                .map(Secret::new),
            None => None,
        };
        let destinations = config
            .targets
            .destinations(&task.image_tag, google_key.as_ref(), self.registry)
            .map_err(|error| error.to_string())?;
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        if dockerfile.is_none() && !task.params.docker_file_path.is_empty() {
            return Err("the uploaded Dockerfile of this task is not in the task table".to_owned());
        }
        Ok(BuildSpec {
            task: task.id.to_string(),
            source: GitSource {
                url: task.params.git_repo.clone(),
                reference: text(&task.params.branch),
                subdir: text(&task.params.app_dir),
                token: config
                    .github_token
                    .clone()
                    .filter(|_| is_github(&task.params.git_repo)),
            },
            dockerfile,
            platform: config.platform.clone(),
            destinations,
            docker_config: config.docker_config.clone(),
            store: config.data.join("store"),
            scratch: config.work.join(task.id.as_str()),
        })
    }

    /// Waits until a build has to stop, and keeps its lease until then.
    async fn stopped(&self, lease: &Lease, shutdown: &CancellationToken) -> Stop {
        let timeout = self.app.config.limits.build_timeout;
        tokio::select! {
            () = shutdown.cancelled() => Stop::Shutdown,
            () = self.keep(lease) => Stop::LeaseLost,
            () = tokio::time::sleep(timeout) => Stop::Timeout(timeout),
        }
    }

    /// Prolongs a lease until it is lost. A database that does not answer is no loss yet:
    /// the build goes on, and who was faster is settled when it ends.
    async fn keep(&self, lease: &Lease) {
        let time = self.options.timing.lease;
        loop {
            tokio::time::sleep(time / 3).await;
            match self.app.store.heartbeat(lease, time).await {
                Ok(()) => {}
                Err(StoreError::LeaseLost { .. }) => return,
                Err(error) => log_store_error("prolong a lease", &error),
            }
        }
    }

    /// Writes the outcome down, again and again while the database does not answer: the
    /// image may be in the registry already, and the work must not be done twice.
    async fn finish(&self, lease: &Lease, outcome: &Outcome, shutdown: &CancellationToken) {
        loop {
            match self.app.store.finish(lease, outcome).await {
                Ok(()) => return,
                Err(StoreError::LeaseLost { .. }) => {
                    tracing::warn!(task = %lease.task, "too late: another worker has the task");
                    return;
                }
                Err(error) => log_store_error("finish a task", &error),
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.timing.poll) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn release(&self, lease: &Lease) {
        // If this fails, the lease expires and the task is recovered, only later.
        if let Err(error) = self.app.store.release(lease).await {
            log_store_error("release a task", &error);
        }
    }
}

/// Tells whether the token for GitHub may be sent there: never to another host, never in
/// plain text.
fn is_github(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| {
        url.scheme() == "https" && url.host_str() == Some("github.com") && url.port().is_none()
    })
}

async fn remove(folder: &Path) {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "a build left its folder behind");
        }
        _ => {}
    }
}

fn shortened(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

fn log_store_error(action: &str, error: &StoreError) {
    tracing::error!(
        action,
        error = error as &dyn std::error::Error,
        "the task table failed"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_github_alone() {
        assert!(is_github("https://github.com/org/repo"));
        for other in [
            "http://github.com/org/repo",
            "https://github.com.evil.example/org/repo",
            "https://gist.github.com/repo",
            "https://evil.example/https://github.com/org/repo",
            "https://github.com:8443/org/repo",
            "https://github.com@evil.example/repo",
        ] {
            assert!(!is_github(other), "{other}");
        }
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(shortened("aü", 2), "a");
        assert_eq!(shortened("aü", 9), "aü");
    }
}
