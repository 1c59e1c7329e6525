//! The task table in one SQLite file, for a service that runs alone.
//!
//! Writers take the lock when they begin (`BEGIN IMMEDIATE`), so that no transaction fails
//! half-way; a commit is on disk before a client hears of it (`synchronous = FULL`).

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, Transaction};

use crate::row::{TaskRow, readable_tasks};
use crate::store::{Claim, Lease, Outcome, Recovered, Result, StoreError, TaskStore};
use crate::store::{abandoned, columns, during, held};
use crate::{NewTask, Task, TaskId, TaskState};

/// How long a writer waits for the others.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const CONNECTIONS: u32 = 4;

/// A task table in one file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, which is created with its tables when missing. Its folder must exist.
    pub async fn open(file: &Path) -> Result<Self> {
        let name = file.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(LOCK_WAIT);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open {
                name: name.clone(),
                source,
            })?;
        let mut migrations = sqlx::migrate!("./migrations/sqlite");
        migrations.dangerous_set_table_name("ocibuild_migrations");
        migrations
            .run(&pool)
            .await
            .map_err(|source| StoreError::Migrate { name, source })?;
        Ok(Self { pool })
    }

    async fn begin(&self, action: &'static str) -> Result<Transaction<'static, Sqlite>> {
        self.pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(during(action))
    }
}

#[async_trait]
impl TaskStore for SqliteStore {
    async fn enqueue(&self, task: &NewTask) -> Result<()> {
        let failed = during("enqueue a task");
        let mut tx = self.begin("enqueue a task").await?;
        sqlx::query(
            "INSERT INTO darwin_image_builder
                 (task_id, app_name, image_tag, logs_url, build_params, status)
             VALUES (?, ?, ?, ?, ?, 'waiting')",
        )
        .bind(task.id.as_str())
        .bind(&task.app_name)
        .bind(&task.image_tag)
        .bind(&task.logs_url)
        .bind(sqlx::types::Json(&task.params))
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        sqlx::query("INSERT INTO ocibuild_task (task_id, dockerfile) VALUES (?, ?)")
            .bind(task.id.as_str())
            .bind(&task.dockerfile)
            .execute(&mut *tx)
            .await
            .map_err(&failed)?;
        tx.commit().await.map_err(&failed)
    }

    async fn claim(&self, owner: &str, lease: Duration) -> Result<Option<Claim>> {
        loop {
            let mut tx = self.begin("claim a task").await?;
            let Some(candidate) = oldest_waiting(&mut tx).await? else {
                return Ok(None);
            };
            let task_id = candidate.task_id.clone();
            match candidate.into_task() {
                Ok(task) => return take(tx, task, owner, lease).await.map(Some),
                Err(unreadable) => reject(tx, &task_id, &unreadable).await?,
            }
        }
    }

    async fn heartbeat(&self, lease: &Lease, time: Duration) -> Result<()> {
        let changed = sqlx::query(
            "UPDATE ocibuild_task
             SET lease_expires_at = strftime('%Y-%m-%d %H:%M:%f', 'now', ?)
             WHERE task_id = ? AND lease_token = ?",
        )
        .bind(modifier(time))
        .bind(lease.task.as_str())
        .bind(&lease.token)
        .execute(&self.pool)
        .await
        .map_err(during("prolong a lease"))?;
        held(lease, changed.rows_affected() == 1)
    }

    async fn finish(&self, lease: &Lease, outcome: &Outcome) -> Result<()> {
        let failed = during("finish a task");
        let (state, error, digest, commit) = columns(outcome);
        let mut tx = self.begin("finish a task").await?;
        let changed = sqlx::query(
            "UPDATE ocibuild_task
             SET lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL,
                 ended_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
                 error = ?, digest = ?, commit_id = ?
             WHERE task_id = ? AND lease_token = ?",
        )
        .bind(error)
        .bind(digest)
        .bind(commit)
        .bind(lease.task.as_str())
        .bind(&lease.token)
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        held(lease, changed.rows_affected() == 1)?;
        held(lease, set_state(&mut tx, &lease.task, state).await?)?;
        tx.commit().await.map_err(&failed)
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let failed = during("release a task");
        let mut tx = self.begin("release a task").await?;
        let changed = sqlx::query(
            "UPDATE ocibuild_task
             SET lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL,
                 attempts = attempts - 1
             WHERE task_id = ? AND lease_token = ?",
        )
        .bind(lease.task.as_str())
        .bind(&lease.token)
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        held(lease, changed.rows_affected() == 1)?;
        held(
            lease,
            set_state(&mut tx, &lease.task, TaskState::Waiting).await?,
        )?;
        tx.commit().await.map_err(&failed)
    }

    async fn recover(&self, max_attempts: u32) -> Result<Recovered> {
        let failed = during("recover abandoned tasks");
        let mut tx = self.begin("recover abandoned tasks").await?;
        let expired: Vec<(String, u32)> = sqlx::query_as(
            "SELECT d.task_id, o.attempts
             FROM ocibuild_task o JOIN darwin_image_builder d ON d.task_id = o.task_id
             WHERE d.status = 'running'
               AND o.lease_expires_at <= strftime('%Y-%m-%d %H:%M:%f', 'now')",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(&failed)?;
        let mut recovered = Recovered::default();
        for (task_id, attempts) in expired {
            // Only claims make leases, and they make them for readable ids.
            let Ok(id) = task_id.parse::<TaskId>() else {
                continue;
            };
            let reason = (attempts >= max_attempts).then(|| abandoned(attempts));
            take_away(&mut tx, &id, reason.as_deref()).await?;
            recovered.add(id, reason.is_some());
        }
        tx.commit().await.map_err(&failed)?;
        Ok(recovered)
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Task>> {
        sqlx::query_as::<_, TaskRow>(
            "SELECT d.task_id, app_name, image_tag, logs_url, build_params, status, created_at,
                    updated_at, attempts, started_at, ended_at, error, commit_id, digest
             FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
             WHERE d.task_id = ?",
        )
        .bind(id.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(during("read a task"))?
        .map(TaskRow::into_task)
        .transpose()
    }

    async fn list(&self) -> Result<Vec<Task>> {
        sqlx::query_as::<_, TaskRow>(
            "SELECT d.task_id, app_name, image_tag, logs_url, build_params, status, created_at,
                    updated_at, attempts, started_at, ended_at, error, commit_id, digest
             FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
             ORDER BY created_at, d.rowid",
        )
        .fetch_all(&self.pool)
        .await
        .map(readable_tasks)
        .map_err(during("list the tasks"))
    }

    async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1 FROM darwin_image_builder LIMIT 1")
            .fetch_optional(&self.pool)
            .await
            .map(drop)
            .map_err(during("reach the task database"))
    }
}

/// Writes a duration as SQLite's date modifier.
fn modifier(time: Duration) -> String {
    format!("+{}.{:03} seconds", time.as_secs(), time.subsec_millis())
}

async fn oldest_waiting(tx: &mut Transaction<'static, Sqlite>) -> Result<Option<TaskRow>> {
    // Times have milliseconds; within one the row number tells who was first.
    sqlx::query_as(
        "SELECT d.task_id, app_name, image_tag, logs_url, build_params, status, created_at,
                updated_at, attempts, started_at, ended_at, error, commit_id, digest
         FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
         WHERE status = 'waiting' ORDER BY created_at, d.rowid LIMIT 1",
    )
    .fetch_optional(&mut **tx)
    .await
    .map_err(during("claim a task"))
}

/// Turns a waiting task into a claimed one.
async fn take(
    mut tx: Transaction<'static, Sqlite>,
    task: Task,
    owner: &str,
    time: Duration,
) -> Result<Claim> {
    let failed = during("claim a task");
    let lease = Lease::new(task.id.clone());
    sqlx::query(
        "UPDATE darwin_image_builder
         SET status = 'running', updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
         WHERE task_id = ?",
    )
    .bind(task.id.as_str())
    .execute(&mut *tx)
    .await
    .map_err(&failed)?;
    let dockerfile: Option<String> = sqlx::query_scalar(
        "INSERT INTO ocibuild_task
             (task_id, attempts, lease_owner, lease_token, lease_expires_at, started_at)
         VALUES (?, 1, ?, ?, strftime('%Y-%m-%d %H:%M:%f', 'now', ?),
                 strftime('%Y-%m-%d %H:%M:%f', 'now'))
         ON CONFLICT (task_id) DO UPDATE SET
             attempts = attempts + 1, lease_owner = excluded.lease_owner,
             lease_token = excluded.lease_token, lease_expires_at = excluded.lease_expires_at,
             started_at = excluded.started_at
         RETURNING dockerfile",
    )
    .bind(task.id.as_str())
    .bind(owner)
    .bind(&lease.token)
    .bind(modifier(time))
    .fetch_one(&mut *tx)
    .await
    .map_err(&failed)?;
    tx.commit().await.map_err(&failed)?;
    let task = Task {
        state: TaskState::Running,
        attempts: task.attempts + 1,
        ..task
    };
    Ok(Claim {
        task,
        dockerfile,
        lease,
    })
}

/// Fails a waiting row that cannot be read, which would hold up all the others.
async fn reject(
    mut tx: Transaction<'static, Sqlite>,
    task_id: &str,
    error: &StoreError,
) -> Result<()> {
    let failed = during("reject an unreadable task");
    tracing::warn!(%error, "a waiting row of the task table is rejected");
    sqlx::query("UPDATE darwin_image_builder SET status = 'failed' WHERE task_id = ?")
        .bind(task_id)
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
    tx.commit().await.map_err(&failed)
}

/// Sets the state of a running task; gives false when it was not running.
async fn set_state(
    tx: &mut Transaction<'static, Sqlite>,
    id: &TaskId,
    state: TaskState,
) -> Result<bool> {
    sqlx::query(
        "UPDATE darwin_image_builder
         SET status = ?, updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
         WHERE task_id = ? AND status = 'running'",
    )
    .bind(state.as_str())
    .bind(id.as_str())
    .execute(&mut **tx)
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(during("set the state of a task"))
}

/// Takes a running task from its owner: it fails if there is a reason, else it waits again.
async fn take_away(
    tx: &mut Transaction<'static, Sqlite>,
    id: &TaskId,
    reason: Option<&str>,
) -> Result<()> {
    sqlx::query(
        "UPDATE ocibuild_task
         SET lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL, error = ?1,
             ended_at = iif(?1 IS NULL, NULL, strftime('%Y-%m-%d %H:%M:%f', 'now'))
         WHERE task_id = ?2",
    )
    .bind(reason)
    .bind(id.as_str())
    .execute(&mut **tx)
    .await
    .map_err(during("recover abandoned tasks"))?;
    let state = if reason.is_some() {
        TaskState::Failed
    } else {
        TaskState::Waiting
    };
    set_state(tx, id, state).await.map(drop)
}
