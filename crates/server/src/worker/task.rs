//! One claimed task, from its lease to its outcome.
//!
//! The build process is watched for everything that may end it: its own end, the time and
//! the memory that it may take, somebody's wish, the loss of the lease, the end of the service.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ocibuild_store::{Claim, End, FailureCode, Lease, Outcome, StoreError, Task, TaskId};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::describe::{self, Refusal};
use super::log::TaskLog;
use super::log_task_error;
use super::observation::Observation;
use super::process::{self, Stop, Verdict, WorkerProgram};
use super::recorder::{Record, Recorder};
use super::redact::Redactor;
use super::running::Build;
use super::usage;
use crate::Options;
use crate::app::App;
use crate::embedded::Running;
use crate::logs::LiveLog;
use crate::request::Request;
use crate::targets;

/// The most that the table keeps of a reason.
const REASON_BYTES: usize = 4096;
/// How much of an earlier log is moved at once.
const PART_BYTES: u64 = 1 << 20;
/// How long the record of a build may take to reach the table when the service ends.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How many heartbeats of followers pass before a silent log says that its build is alive:
/// less than what proxies and people allow.
const SILENT_BEATS: u32 = 3;
/// How often the memory of a build is measured.
const MEASURE: Duration = Duration::from_millis(250);

/// What the work on one task needs.
pub(super) struct Work {
    pub(super) app: Arc<App>,
    pub(super) options: Options,
    pub(super) registry: Option<Running>,
    /// Builds are to stop, and their tasks are given back.
    pub(super) stop: CancellationToken,
}

/// The log of a task that is being built, with what brings it into the table.
struct Open {
    log: TaskLog,
    record: Record,
    recorder: JoinHandle<LiveLog>,
}

impl Work {
    /// Sees one task to its end. `lost_contact` is told when the database does not answer.
    pub(super) async fn on(&self, claim: Claim, lost_contact: &(dyn Fn() + Sync)) {
        let Claim {
            task,
            dockerfile,
            lease,
        } = claim;
        let build = self.app.running.enter(&task.id);
        tracing::info!(task = %task.id, app = task.app_name, attempt = task.attempts, "build begins");
        let began = Instant::now();
        let mut open = match self.open_log(&lease).await {
            Ok(open) => open,
            Err(error) => {
                log_task_error(&task.id, "begin the log of a task", &error);
                return self.release(&lease).await;
            }
        };
        open.log.observe(Observation::begin(&self.app, &task));
        let watch = Watch {
            work: self,
            lease: &lease,
            build: &build,
            lost_contact,
        };
        let verdict = watch.build(&task, dockerfile, &mut open.log).await;
        let judged = self.judge(verdict, &open.log);
        open.log.judged(judged.as_ref());
        let outcome = match judged {
            Ok(outcome) => outcome,
            Err(Stop::LeaseLost) => {
                tracing::warn!(task = %task.id, "the lease was lost; another worker has the task");
                return open.recorder.abort();
            }
            Err(_) => {
                open.log
                    .last_line("The service is shutting down; this task waits again");
                self.close_log(open).await;
                return self.release(&lease).await;
            }
        };
        open.log.end(&outcome, began.elapsed());
        tracing::info!(task = %task.id, ?outcome, "build ended");
        let live = self.close_log(open).await;
        self.finish(&lease, &outcome).await;
        if let Some(live) = live {
            live.end();
        }
    }

    /// Opens the log of a task, behind what earlier attempts left in the table.
    async fn open_log(&self, lease: &Lease) -> Result<Open, StoreError> {
        let (store, logs) = (&self.app.store, &self.app.logs);
        let mut so_far = Vec::new();
        loop {
            let offset = so_far.len() as u64;
            let part = store.read_log(&lease.task, offset, PART_BYTES).await?;
            if part.data.is_empty() {
                break;
            }
            so_far.extend_from_slice(&part.data);
        }
        let length = so_far.len() as u64;
        let record = Record::new(length);
        let limit = self.app.config.limits.log_bytes.saturating_sub(length);
        let file = match logs.folder().begin(&lease.task, &so_far) {
            Ok(file) => Some(file),
            Err(error) => {
                // A log that cannot be written does not fail a build.
                tracing::error!(task = %lease.task, %error, "the log cannot be written");
                None
            }
        };
        let mut log = TaskLog::new(&lease.task, file, length, limit, record.clone());
        log.break_silence(self.options.timing.heartbeat * SILENT_BEATS);
        let recorder = Recorder {
            store: Arc::clone(store),
            folder: logs.folder().clone(),
            lease: lease.clone(),
            record: record.clone(),
            live: logs.announce(&lease.task, length),
            stored: length,
        };
        Ok(Open {
            log,
            record,
            recorder: tokio::spawn(recorder.run()),
        })
    }

    /// Waits until everything of the log is in the table. A service that ends does not wait
    /// for a database that is away.
    async fn close_log(&self, open: Open) -> Option<LiveLog> {
        let Open {
            log,
            record,
            mut recorder,
        } = open;
        drop(log);
        record.end();
        let late = async {
            self.stop.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            live = &mut recorder => live.ok(),
            () = late => {
                recorder.abort();
                None
            }
        }
    }

    /// Makes an outcome of a verdict, or says why there is none.
    fn judge(&self, verdict: Verdict, log: &TaskLog) -> Result<Outcome, Stop> {
        match verdict {
            Verdict::Completed {
                result,
                commit,
                pushed,
            } => Ok(Outcome {
                end: End::Completed {
                    digest: result.digest.to_string(),
                },
                commit,
                pushed,
            }),
            Verdict::Failed {
                code,
                reason,
                commit,
                pushed,
            } => {
                let reason = log.redact(&reason);
                let reason = shortened(&reason, REASON_BYTES).to_owned();
                Ok(Outcome {
                    end: End::Failed { code, reason },
                    commit,
                    pushed,
                })
            }
            Verdict::Stopped(stop) => Err(stop),
        }
    }

    /// Writes the outcome down, again and again while the database does not answer: the
    /// image may be in the registry already, and the work must not be done twice.
    async fn finish(&self, lease: &Lease, outcome: &Outcome) {
        loop {
            match self.app.store.finish(lease, outcome).await {
                Ok(()) => return,
                Err(StoreError::LeaseLost { .. }) => {
                    tracing::warn!(task = %lease.task, "too late: another worker has the task");
                    return;
                }
                Err(error) => log_task_error(&lease.task, "finish a task", &error),
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.timing.poll) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn release(&self, lease: &Lease) {
        // If this fails, the lease expires and the task is recovered, only later.
        if let Err(error) = self.app.store.release(lease).await {
            log_task_error(&lease.task, "release a task", &error);
        }
    }
}

/// A build that is being watched.
struct Watch<'a> {
    work: &'a Work,
    lease: &'a Lease,
    build: &'a Build,
    lost_contact: &'a (dyn Fn() + Sync),
}

/// What one build may take.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    time: Duration,
    memory: Option<u64>,
}

impl Watch<'_> {
    /// Runs the build process of one task, with everything around it.
    async fn build(&self, task: &Task, dockerfile: Option<String>, log: &mut TaskLog) -> Verdict {
        let request = match describe::request(task) {
            Ok(request) => request,
            Err(refusal) => return refused(refusal),
        };
        // The lease is kept and wishes are heard while the build is prepared, too.
        let prepared = tokio::select! {
            prepared = self.prepare(task, request, dockerfile, log) => prepared,
            stop = self.stopped(None, self.allowance(&Request::default())) => return ended(stop),
        };
        let (spec, allowance) = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => return refused(refusal),
        };
        let program = WorkerProgram {
            path: &self.work.options.worker_program,
            arguments: &self.work.options.worker_arguments,
            environment: &self.work.app.config.worker_environment,
            grace: self.work.options.timing.grace,
        };
        let stopped = |process| self.stopped(process, allowance);
        let verdict = process::run(&program, &spec, log, stopped).await;
        remove(&task.id, &spec.scratch).await;
        self.explained(verdict)
    }

    /// Says what a loopback address means, where a push to it failed.
    fn explained(&self, verdict: Verdict) -> Verdict {
        let config = &self.work.app.config;
        let local = config.targets.local_registry.as_ref();
        let unknown = local.filter(|local| !targets::has_alias(&config.aliases, &local.address));
        match (
            verdict,
            unknown.and_then(|local| targets::loopback_hint(&local.address)),
        ) {
            (
                Verdict::Failed {
                    code: FailureCode::Registry,
                    reason,
                    commit,
                    pushed,
                },
                Some(hint),
            ) if reason.contains("connect") => Verdict::Failed {
                code: FailureCode::Registry,
                reason: format!("{reason} ({hint})"),
                commit,
                pushed,
            },
            (verdict, _) => verdict,
        }
    }

    async fn prepare(
        &self,
        task: &Task,
        request: Request,
        dockerfile: Option<String>,
        log: &mut TaskLog,
    ) -> Result<(crate::spec::BuildSpec, Allowance), Refusal> {
        let app = &self.work.app;
        let allowance = self.allowance(&request);
        let context = request.context.clone();
        let spec =
            describe::spec(app, task, request, dockerfile, self.work.registry.as_ref()).await?;
        let logins = describe::logins(&spec).await;
        log.hide(Redactor::new(spec.secrets().chain(&logins)));
        log.begin(task, &spec);
        describe::prepare(app, &spec, &context).await?;
        Ok((spec, allowance))
    }

    fn allowance(&self, request: &Request) -> Allowance {
        let limits = &self.work.app.config.limits;
        let time = request.timeout_seconds.map(Duration::from_secs);
        let memory = [request.limits.memory_bytes, limits.build_memory];
        Allowance {
            time: time.map_or(limits.build_timeout, |time| time.min(limits.build_timeout)),
            memory: memory.into_iter().flatten().min(),
        }
    }

    /// Waits until a build has to stop, and keeps its lease until then.
    async fn stopped(&self, process: Option<u32>, allowance: Allowance) -> Stop {
        tokio::select! {
            () = self.work.stop.cancelled() => Stop::Shutdown,
            () = self.keep_lease() => Stop::LeaseLost,
            reason = self.build.cancelled() => Stop::Cancelled(reason),
            stop = too_much_memory(process, allowance.memory) => stop,
            () = tokio::time::sleep(allowance.time) => Stop::Timeout(allowance.time),
        }
    }

    /// Prolongs a lease until it is lost. A database that does not answer is no loss yet:
    /// the build goes on, and who was faster is settled when it ends.
    async fn keep_lease(&self) {
        let time = self.work.app.config.timing.lease;
        loop {
            tokio::time::sleep(time / 3).await;
            match self.work.app.store.heartbeat(self.lease, time).await {
                Ok(()) => {}
                Err(StoreError::LeaseLost { .. }) => return,
                Err(error) => {
                    (self.lost_contact)();
                    log_task_error(&self.lease.task, "prolong a lease", &error);
                }
            }
        }
    }
}

fn refused(refusal: Refusal) -> Verdict {
    Verdict::failed(refusal.code, refusal.reason)
}

/// Judges a build that was stopped before it had a process.
fn ended(stop: Stop) -> Verdict {
    match stop {
        Stop::Cancelled(reason) => Verdict::failed(FailureCode::Cancelled, reason),
        Stop::Timeout(limit) => {
            let seconds = limit.as_secs();
            let reason = format!("the build could not begin within {seconds} s");
            Verdict::failed(FailureCode::Timeout, reason)
        }
        stop => Verdict::Stopped(stop),
    }
}

/// Waits until a process and all below it have more memory than they may.
async fn too_much_memory(process: Option<u32>, limit: Option<u64>) -> Stop {
    let (Some(process), Some(limit)) = (process, limit) else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(MEASURE).await;
        // Files of /proc do not block.
        let used = usage::memory(process);
        if used > limit {
            return Stop::Memory { limit, used };
        }
    }
}

async fn remove(task: &TaskId, folder: &Path) {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%task, folder = %folder.display(), %error, "a build left its folder behind");
        }
        _ => {}
    }
}

fn shortened(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(shortened("aü", 2), "a");
        assert_eq!(shortened("aü", 9), "aü");
    }
}
