//! Claiming: the oldest waiting task goes to whoever asks first.
//!
//! One look at the queue offers some candidates without locking anything; each is then taken
//! on the condition that it still waits.

use std::time::Duration;

use crate::database::{Database, Work, microseconds};
use crate::statement::sql;
use crate::store::{Claim, Lease, Result, StoreError};
use crate::table::moves::{Locked, ensure_own_row, fail, lock, set_state};
use crate::table::row::{COLUMNS, TABLES, TaskRow, size};
use crate::{FailureCode, Task, TaskId, TaskState};

/// How many waiting tasks one look at the queue offers; more replicas than this look again.
const CANDIDATES: u32 = 16;

pub(super) async fn claim<D: Database>(
    database: &D,
    owner: &str,
    lease: Duration,
    per_app: Option<u32>,
) -> Result<Option<Claim>> {
    loop {
        let candidates = candidates(database, per_app).await?;
        if candidates.is_empty() {
            return Ok(None);
        }
        for candidate in candidates {
            let (id, app) = (candidate.task_id.clone(), candidate.app_name().to_owned());
            match candidate.into_task() {
                Ok(task) => {
                    let slot = per_app.map(|limit| (app.as_str(), limit));
                    if let Some(claim) = take(database, task, owner, lease, slot).await? {
                        return Ok(Some(claim));
                    }
                }
                Err(unreadable) => reject(database, &id, &unreadable).await?,
            }
        }
    }
}

/// Reads the first waiting tasks, without those of applications that have enough running.
async fn candidates<D: Database>(database: &D, per_app: Option<u32>) -> Result<Vec<TaskRow>> {
    let mut work = Work::plain(database, "look for waiting tasks").await?;
    let mut statement = sql("SELECT")
        .and(COLUMNS)
        .and(TABLES)
        .and("WHERE d.status = 'waiting'");
    if let Some(limit) = per_app {
        // Those that Darwin's builder runs, or has left behind, are none of ours.
        statement = statement
            .and(
                "AND d.app_name NOT IN (
                     SELECT r.app_name
                     FROM darwin_image_builder r LEFT JOIN ocibuild_task l ON l.task_id = r.task_id
                     WHERE r.status = 'running' AND l.lease_token IS NOT NULL
                     GROUP BY r.app_name HAVING COUNT(*) >= ?)",
            )
            .bind(limit);
    }
    let statement = statement
        .and("ORDER BY d.created_at, d.{arrival} LIMIT ?")
        .bind(CANDIDATES);
    work.rows(statement).await
}

/// Takes one candidate, unless somebody else was faster, or its application has enough running.
async fn take<D: Database>(
    database: &D,
    task: Task,
    owner: &str,
    time: Duration,
    slot: Option<(&str, u32)>,
) -> Result<Option<Claim>> {
    if let Some((app, _)) = slot {
        ensure_app(database, app).await?;
    }
    let id = task.id.as_str();
    let mut work = Work::transaction(database, "claim a task").await?;
    let waiting = if has_room(&mut work, slot).await? {
        lock(&mut work, id)
            .await?
            .filter(|row| row.state() == Some(TaskState::Waiting))
    } else {
        None
    };
    let claim = match waiting {
        None => None,
        Some(row) => match row.cancel_reason() {
            Some(reason) => {
                fail(&mut work, id, &row, (FailureCode::Cancelled, reason)).await?;
                None
            }
            None => Some(begin_attempt(&mut work, &task.id, &row, owner, time).await?),
        },
    };
    work.commit().await?;
    Ok(claim)
}

/// Gives a locked task to its new owner.
async fn begin_attempt<D: Database>(
    work: &mut Work<D>,
    id: &TaskId,
    row: &Locked,
    owner: &str,
    time: Duration,
) -> Result<Claim> {
    let lease = Lease::new(id.clone());
    let id = id.as_str();
    set_state(work, id, TaskState::Running).await?;
    ensure_own_row(work, id, row).await?;
    let update = sql("UPDATE ocibuild_task
         SET attempts = attempts + 1, lease_owner = ?, lease_token = ?,
             lease_expires_at = {later}, started_at = {now}, ended_at = NULL, error = NULL,
             error_code = NULL, digest = NULL, pushed = NULL, commit_id = NULL,
             cancel_reason = NULL, log_length = COALESCE(log_length, 0)
         WHERE task_id = ?")
    .bind(owner)
    .bind(lease.token.as_str())
    .bind(microseconds(time))
    .bind(id);
    work.execute(update).await?;
    let former = sql("DELETE FROM ocibuild_step WHERE task_id = ?");
    work.execute(former.bind(id)).await?;
    let (task, dockerfile) = claimed(work, id).await?;
    Ok(Claim {
        task,
        dockerfile,
        lease,
    })
}

/// Makes the row that [`has_room`] locks. It stands apart, because of two that insert the same
/// row and then lock it each waits for the other.
async fn ensure_app<D: Database>(database: &D, app: &str) -> Result<()> {
    let mut work = Work::plain(database, "note an application").await?;
    let select = sql("SELECT app_name FROM ocibuild_app WHERE app_name = ?");
    let known: Option<(String,)> = work.row(select.bind(app)).await?;
    if known.is_none() {
        let insert = sql("{insert new} INTO ocibuild_app (app_name) VALUES (?)");
        work.execute(insert.bind(app)).await?;
    }
    Ok(())
}

/// Tells whether an application may have one more running task; until the end of `work` nobody
/// else is told so.
async fn has_room<D: Database>(work: &mut Work<D>, slot: Option<(&str, u32)>) -> Result<bool> {
    let Some((app, limit)) = slot else {
        return Ok(true);
    };
    let select = sql("SELECT app_name FROM ocibuild_app WHERE app_name = ? {lock}");
    let _: Option<(String,)> = work.row(select.bind(app)).await?;
    let count = sql("SELECT COUNT(*)
         FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
         WHERE d.status = 'running' AND d.app_name = ? AND o.lease_token IS NOT NULL");
    let (count,): (i64,) = work.row(count.bind(app)).await?.unwrap_or_default();
    Ok(size(count) < u64::from(limit))
}

async fn claimed<D: Database>(work: &mut Work<D>, id: &str) -> Result<(Task, Option<String>)> {
    #[derive(sqlx::FromRow)]
    struct Row {
        #[sqlx(flatten)]
        task: TaskRow,
        dockerfile: Option<String>,
    }
    let select = sql("SELECT o.dockerfile,")
        .and(COLUMNS)
        .and(TABLES)
        .and("WHERE d.task_id = ?");
    let gone = || StoreError::Query {
        action: "claim a task",
        source: sqlx::Error::RowNotFound,
    };
    let row: Row = work.row(select.bind(id)).await?.ok_or_else(gone)?;
    Ok((row.task.into_task()?, row.dockerfile))
}

/// Fails a waiting row that cannot be read, which would hold up all the others.
async fn reject<D: Database>(database: &D, id: &str, error: &StoreError) -> Result<()> {
    tracing::warn!(%error, "a waiting row of the task table is rejected");
    let mut work = Work::transaction(database, "reject an unreadable task").await?;
    if let Some(row) = lock(&mut work, id).await?
        && row.state() == Some(TaskState::Waiting)
    {
        let reason = error.to_string();
        fail(&mut work, id, &row, (FailureCode::User, &reason)).await?;
    }
    work.commit().await
}
