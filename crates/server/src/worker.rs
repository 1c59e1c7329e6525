//! The worker: claims tasks, as many as may run at once, and sees each to its end.
//!
//! A claim is a lease that `heartbeat` prolongs; who loses it stops. Whatever happens to a
//! build, its task ends with a reason, in the table and as the last line of its log. Only a
//! service that shuts down gives its tasks back.

mod describe;
mod log;
mod observation;
mod process;
mod recorder;
mod redact;
mod running;
mod steps;
mod task;
mod usage;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ocibuild_store::{Recovered, StoreError, TaskId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::running::Running;
use self::task::Work;
use crate::Options;
use crate::app::App;
use crate::embedded;

/// How often running builds are asked whether somebody wants them to end.
const CANCEL_PAUSE: Duration = Duration::from_millis(500);

/// Claims tasks and runs their builds.
#[derive(Debug)]
pub(crate) struct Worker {
    app: Arc<App>,
    options: Options,
    /// The name under which tasks are claimed.
    name: String,
    /// Nobody else has this name: what it left behind is ours.
    name_is_ours: bool,
    /// The embedded registry, if there is one.
    registry: Option<embedded::Running>,
    /// Since when the database has answered every time.
    contact: Mutex<Instant>,
}

/// How a worker ends: it first takes no more tasks, then stops those that it has.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// No more tasks are taken.
    pub(crate) drain: CancellationToken,
    /// Builds that still run are stopped and given back.
    pub(crate) stop: CancellationToken,
}

impl Worker {
    pub(crate) fn new(
        app: Arc<App>,
        options: Options,
        name: (String, bool),
        registry: Option<embedded::Running>,
    ) -> Self {
        Self {
            app,
            options,
            name: name.0,
            name_is_ours: name.1,
            registry,
            contact: Mutex::new(Instant::now()),
        }
    }

    /// Works until `ending` says so and every build has ended.
    pub(crate) async fn run(self, ending: Ending) {
        let worker = Arc::new(self);
        let builds = TaskTracker::new();
        let upkeep = CancellationToken::new();
        let claims = async {
            worker.recover_own(&ending).await;
            worker.claim_all(&builds, &ending).await;
            builds.close();
            builds.wait().await;
            upkeep.cancel();
        };
        tokio::join!(
            claims,
            worker.recover_abandoned(&upkeep),
            worker.pass_on_cancels(&upkeep)
        );
    }

    /// Puts the tasks back that an earlier process under this name was building. Nothing is
    /// claimed before: what is claimed has the same name.
    async fn recover_own(&self, ending: &Ending) {
        if !self.name_is_ours {
            return;
        }
        let max_attempts = self.app.config.limits.max_attempts;
        loop {
            match self.app.store.recover_owner(&self.name, max_attempts).await {
                Ok(recovered) => return self.tell(&recovered),
                Err(error) => {
                    self.lost_contact();
                    log_store_error("recover tasks of an earlier process", &error);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.timing.poll) => {}
                () = ending.drain.cancelled() => return,
            }
        }
    }

    /// Claims one task after the other as long as there is room for it.
    async fn claim_all(self: &Arc<Self>, builds: &TaskTracker, ending: &Ending) {
        let room = Arc::new(Semaphore::new(self.app.config.limits.max_builds));
        loop {
            let place = tokio::select! {
                biased;
                () = ending.drain.cancelled() => return,
                Ok(place) = Arc::clone(&room).acquire_owned() => place,
            };
            if self.claim(builds, place, ending).await {
                continue;
            }
            tokio::select! {
                () = self.app.queued.notified() => {}
                () = tokio::time::sleep(self.options.timing.poll) => {}
                () = ending.drain.cancelled() => return,
            }
        }
    }

    /// Claims one task and begins its build; false if there is none now.
    async fn claim(
        self: &Arc<Self>,
        builds: &TaskTracker,
        place: OwnedSemaphorePermit,
        ending: &Ending,
    ) -> bool {
        let per_app = self.app.config.limits.max_builds_per_app;
        let lease = self.app.config.timing.lease;
        match self.app.store.claim(&self.name, lease, per_app).await {
            Ok(Some(claim)) => {
                let work = Work {
                    app: Arc::clone(&self.app),
                    options: self.options.clone(),
                    registry: self.registry.clone(),
                    stop: ending.stop.clone(),
                };
                let worker = Arc::clone(self);
                builds.spawn(async move {
                    work.on(claim, &|| worker.lost_contact()).await;
                    drop(place);
                    // A place is free, and so may be one of the application.
                    worker.app.queued.notify_one();
                });
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.lost_contact();
                log_store_error("claim a task", &error);
                false
            }
        }
    }

    /// Puts tasks back whose worker, here or on another replica, has disappeared.
    ///
    /// Only a worker that has reached the database for the time of a lease judges others:
    /// after an outage all leases look expired until their owners are back.
    async fn recover_abandoned(&self, shutdown: &CancellationToken) {
        let lease = self.app.config.timing.lease;
        let pause = (lease / 5).min(self.options.timing.poll);
        loop {
            self.app.health.tick();
            match self.recover(lease).await {
                Ok(recovered) => self.tell(&recovered),
                Err(error) => {
                    self.lost_contact();
                    log_store_error("recover abandoned tasks", &error);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn recover(&self, lease: Duration) -> Result<Recovered, StoreError> {
        let contact = *self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        if contact.elapsed() < lease {
            self.app.store.ping().await?;
            return Ok(Recovered::default());
        }
        let max_attempts = self.app.config.limits.max_attempts;
        self.app.store.recover(max_attempts).await
    }

    fn tell(&self, recovered: &Recovered) {
        self.app.metrics.recovered(recovered);
        for id in &recovered.requeued {
            tracing::warn!(task = %id, "an abandoned task waits again");
        }
        for id in &recovered.failed {
            tracing::error!(task = %id, "a task was abandoned too often, or cancelled, and failed");
        }
        if !recovered.requeued.is_empty() {
            self.app.queued.notify_one();
        }
    }

    fn lost_contact(&self) {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends the builds here that somebody cancelled on another replica.
    async fn pass_on_cancels(&self, shutdown: &CancellationToken) {
        loop {
            if !self.app.running.is_empty() {
                match self.app.store.cancel_requests(&self.name).await {
                    Ok(requests) => {
                        for request in requests {
                            self.app.running.cancel(&request.task, &request.reason);
                        }
                    }
                    Err(error) => log_store_error("look for cancelled tasks", &error),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(CANCEL_PAUSE) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

/// As [`log_store_error`], about one task.
fn log_task_error(task: &TaskId, action: &str, error: &StoreError) {
    tracing::error!(
        %task,
        action,
        error = error as &dyn std::error::Error,
        "the task table failed"
    );
}

fn log_store_error(action: &str, error: &StoreError) {
    tracing::error!(
        action,
        error = error as &dyn std::error::Error,
        "the task table failed"
    );
}
