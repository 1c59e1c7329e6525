//! Queueing and ending tasks, and keeping the right to work on them.

use std::time::Duration;

use crate::database::{Database, Work, microseconds};
use crate::statement::sql;
use crate::store::{Lease, Result, StoreError};
use crate::table::chunks::LOG;
use crate::table::moves::{fail, lock_leased, set_state};
use crate::{FailureCode, NewTask, Outcome, Pushed, TaskState};

pub(super) async fn enqueue<D: Database>(database: &D, task: &NewTask) -> Result<()> {
    let id = task.id.as_str();
    let mut work = Work::transaction(database, "enqueue a task").await?;
    let params = serde_json::to_string(&task.params).expect("four texts are JSON");
    let insert = sql("INSERT INTO darwin_image_builder
             (task_id, app_name, image_tag, logs_url, build_params, status)
         VALUES (?, ?, ?, ?, ?, 'waiting')")
    .bind(id)
    .bind(task.app_name.as_str())
    .bind(task.image_tag.as_str())
    .bind(task.logs_url.as_str())
    .bind(params);
    work.execute(insert).await?;
    let insert = sql("INSERT INTO ocibuild_task
             (task_id, dockerfile, request, context_id, tenant, trace_parent, log_length)
         VALUES (?, ?, ?, ?, ?, ?, ?)")
    .bind(id)
    .bind(task.dockerfile.as_deref())
    .bind(task.request.as_deref())
    .bind(task.context.as_ref().map(|context| context.as_str()))
    .bind(task.tenant.as_deref())
    .bind(task.trace_parent.as_deref())
    .bind(task.log.len() as u64);
    work.execute(insert).await?;
    LOG.add(&mut work, id, 0, task.log.as_bytes()).await?;
    if let Some(context) = &task.context {
        // From now on the task keeps it; until now its age did not.
        let used = sql("UPDATE ocibuild_context SET used_at = {now} WHERE context_id = ?");
        work.execute(used.bind(context.as_str())).await?;
    }
    work.commit().await
}

pub(super) async fn heartbeat<D: Database>(
    database: &D,
    lease: &Lease,
    time: Duration,
) -> Result<()> {
    let mut work = Work::plain(database, "prolong a lease").await?;
    let update = sql("UPDATE ocibuild_task SET lease_expires_at = {later}
         WHERE task_id = ? AND lease_token = ?")
    .bind(microseconds(time))
    .bind(lease.task.as_str())
    .bind(lease.token.as_str());
    let found = work.execute(update).await? == 1;
    found.then_some(()).ok_or_else(|| StoreError::LeaseLost {
        task: lease.task.clone(),
    })
}

pub(super) async fn finish<D: Database>(
    database: &D,
    lease: &Lease,
    outcome: &Outcome,
) -> Result<()> {
    let mut work = Work::transaction(database, "finish a task").await?;
    lock_leased(&mut work, lease).await?;
    set_state(&mut work, lease.task.as_str(), outcome.state()).await?;
    let failure = outcome.failure();
    let update = sql("UPDATE ocibuild_task
         SET lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL, ended_at = {now},
             error_code = ?, error = ?, digest = ?, pushed = ?, commit_id = COALESCE(?, commit_id)
         WHERE task_id = ?")
    .bind(failure.map(|(code, _)| code.as_str()))
    .bind(failure.map(|(_, reason)| reason))
    .bind(outcome.digest())
    .bind(json(&outcome.pushed))
    .bind(outcome.commit.as_deref())
    .bind(lease.task.as_str());
    work.execute(update).await?;
    work.commit().await
}

pub(super) async fn release<D: Database>(database: &D, lease: &Lease) -> Result<()> {
    let id = lease.task.as_str();
    let mut work = Work::transaction(database, "release a task").await?;
    let row = lock_leased(&mut work, lease).await?;
    if let Some(reason) = row.cancel_reason() {
        fail(&mut work, id, &row, (FailureCode::Cancelled, reason)).await?;
    } else {
        set_state(&mut work, id, TaskState::Waiting).await?;
        let update = sql("UPDATE ocibuild_task
             SET lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL,
                 attempts = attempts - 1
             WHERE task_id = ?");
        work.execute(update.bind(id)).await?;
    }
    work.commit().await
}

fn json(pushed: &[Pushed]) -> Option<String> {
    let list = serde_json::to_string(pushed).expect("texts are JSON");
    (!pushed.is_empty()).then_some(list)
}
