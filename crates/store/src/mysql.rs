//! The task table in MySQL or MariaDB, shared by any number of replicas.
//!
//! A claim is an update on the condition that the task still waits, so that replicas never
//! hold locks on rows that they do not take, and so that Darwin's own builder, which claims
//! with `FOR UPDATE SKIP LOCKED`, can work on the same table.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::MigrateError;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, MySql, Transaction};

use crate::row::{TaskRow, readable_tasks};
use crate::store::{Claim, Lease, Outcome, Recovered, Result, StoreError, TaskStore};
use crate::store::{abandoned, columns, during, held};
use crate::{NewTask, Task, TaskId, TaskState};

/// How many waiting tasks one look at the queue offers; more replicas than this look again.
const CANDIDATES: u32 = 16;
/// How long a replica waits while another one makes the tables.
const MIGRATION_WAIT_SECONDS: u32 = 60;
/// MySQL's error for a database that does not exist (`ER_BAD_DB_ERROR`).
const UNKNOWN_DATABASE: u16 = 1049;

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub struct MySqlSettings {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name of the database, which is created when missing.
    pub database: String,
    /// User.
    pub username: String,
    /// Password, empty for none; every character is allowed.
    pub password: String,
    /// How long an operation waits for a connection.
    pub timeout: Duration,
    /// The most connections that are kept.
    pub connections: u32,
}

impl std::fmt::Debug for MySqlSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MySqlSettings({} as {:?})", self.name(), self.username)
    }
}

impl MySqlSettings {
    /// Names the database for people, without the password.
    pub fn name(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }

    // Options in place of a URL: a password may contain what a URL cannot.
    fn server(&self) -> MySqlConnectOptions {
        let options = MySqlConnectOptions::new()
            .host(&self.host)
            .port(self.port)
            .username(&self.username);
        // The server takes the proof of an empty password for a wrong one: send none at all.
        if self.password.is_empty() {
            options
        } else {
            options.password(&self.password)
        }
    }
}

/// A task table on a database server.
#[derive(Debug, Clone)]
pub struct MySqlStore {
    pool: MySqlPool,
}

impl MySqlStore {
    /// Connects, and creates the database and the tables that are missing.
    pub async fn connect(settings: &MySqlSettings) -> Result<Self> {
        let failed = |source| StoreError::Open {
            name: settings.name(),
            source,
        };
        create_database(settings).await.map_err(failed)?;
        let pool = MySqlPoolOptions::new()
            .max_connections(settings.connections)
            .acquire_timeout(settings.timeout)
            .after_connect(|connection, _| {
                // Updates by primary key then lock their row and no gap beside it.
                let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
                Box::pin(async move { connection.execute(isolation).await.map(drop) })
            })
            .connect_with(settings.server().database(&settings.database))
            .await
            .map_err(failed)?;
        let failed = |source| StoreError::Migrate {
            name: settings.name(),
            source,
        };
        migrate(&pool).await.map_err(failed)?;
        Ok(Self { pool })
    }

    async fn begin(&self, action: &'static str) -> Result<Transaction<'static, MySql>> {
        self.pool.begin().await.map_err(during(action))
    }

    /// Takes one candidate, unless somebody else was faster.
    async fn take(&self, task: Task, owner: &str, time: Duration) -> Result<Option<Claim>> {
        let failed = during("claim a task");
        let mut tx = self.begin("claim a task").await?;
        if !set_state(
            &mut tx,
            task.id.as_str(),
            TaskState::Waiting,
            TaskState::Running,
        )
        .await?
        {
            return Ok(None);
        }
        let lease = Lease::new(task.id.clone());
        sqlx::query(
            "INSERT INTO ocibuild_task
                 (task_id, attempts, lease_owner, lease_token, lease_expires_at, started_at)
             VALUES (?, 1, ?, ?, TIMESTAMPADD(MICROSECOND, ?, NOW(6)), NOW(6))
             ON DUPLICATE KEY UPDATE
                 attempts = attempts + 1, lease_owner = VALUES(lease_owner),
                 lease_token = VALUES(lease_token), lease_expires_at = VALUES(lease_expires_at),
                 started_at = VALUES(started_at)",
        )
        .bind(task.id.as_str())
        .bind(owner)
        .bind(&lease.token)
        .bind(microseconds(time))
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        let dockerfile =
            sqlx::query_scalar("SELECT dockerfile FROM ocibuild_task WHERE task_id = ?")
                .bind(task.id.as_str())
                .fetch_one(&mut *tx)
                .await
                .map_err(&failed)?;
        tx.commit().await.map_err(&failed)?;
        let task = Task {
            state: TaskState::Running,
            attempts: task.attempts + 1,
            ..task
        };
        Ok(Some(Claim {
            task,
            dockerfile,
            lease,
        }))
    }

    /// Fails a waiting row that cannot be read, which would hold up all the others.
    async fn reject(&self, task_id: &str, error: &StoreError) -> Result<()> {
        tracing::warn!(%error, "a waiting row of the task table is rejected");
        let mut tx = self.begin("reject an unreadable task").await?;
        set_state(&mut tx, task_id, TaskState::Waiting, TaskState::Failed).await?;
        tx.commit()
            .await
            .map_err(during("reject an unreadable task"))
    }

    /// Takes an abandoned task from its owner: it fails if there is a reason, else it waits
    /// again. Gives false when the owner prolonged its lease in time.
    async fn take_away(&self, id: &TaskId, token: &str, reason: Option<&str>) -> Result<bool> {
        let failed = during("recover abandoned tasks");
        let mut tx = self.begin("recover abandoned tasks").await?;
        let changed = sqlx::query(
            "UPDATE ocibuild_task
             SET lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL, error = ?,
                 ended_at = IF(? IS NULL, NULL, NOW(6))
             WHERE task_id = ? AND lease_token = ? AND lease_expires_at <= NOW(6)",
        )
        .bind(reason)
        .bind(reason)
        .bind(id.as_str())
        .bind(token)
        .execute(&mut *tx)
        .await
        .map_err(&failed)?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        let next = if reason.is_some() {
            TaskState::Failed
        } else {
            TaskState::Waiting
        };
        let moved = set_state(&mut tx, id.as_str(), TaskState::Running, next).await?;
        tx.commit().await.map_err(&failed)?;
        Ok(moved)
    }
}

#[async_trait]
impl TaskStore for MySqlStore {
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
            let candidates: Vec<TaskRow> = sqlx::query_as(
                "SELECT d.task_id, app_name, image_tag, logs_url,
                        CAST(build_params AS CHAR) AS build_params, status, created_at,
                        updated_at, attempts, started_at, ended_at, error, commit_id, digest
                 FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
                 WHERE status = 'waiting' ORDER BY created_at, d.task_id LIMIT ?",
            )
            .bind(CANDIDATES)
            .fetch_all(&self.pool)
            .await
            .map_err(during("claim a task"))?;
            if candidates.is_empty() {
                return Ok(None);
            }
            for candidate in candidates {
                let task_id = candidate.task_id.clone();
                match candidate.into_task() {
                    Ok(task) => match self.take(task, owner, lease).await? {
                        Some(claim) => return Ok(Some(claim)),
                        None => continue,
                    },
                    Err(unreadable) => self.reject(&task_id, &unreadable).await?,
                }
            }
        }
    }

    async fn heartbeat(&self, lease: &Lease, time: Duration) -> Result<()> {
        let changed = sqlx::query(
            "UPDATE ocibuild_task
             SET lease_expires_at = TIMESTAMPADD(MICROSECOND, ?, NOW(6))
             WHERE task_id = ? AND lease_token = ?",
        )
        .bind(microseconds(time))
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
                 ended_at = NOW(6), error = ?, digest = ?, commit_id = ?
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
        let id = lease.task.as_str();
        held(
            lease,
            set_state(&mut tx, id, TaskState::Running, state).await?,
        )?;
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
        let id = lease.task.as_str();
        held(
            lease,
            set_state(&mut tx, id, TaskState::Running, TaskState::Waiting).await?,
        )?;
        tx.commit().await.map_err(&failed)
    }

    async fn recover(&self, max_attempts: u32) -> Result<Recovered> {
        let expired: Vec<(String, i64, String)> = sqlx::query_as(
            "SELECT d.task_id, o.attempts, o.lease_token
             FROM ocibuild_task o JOIN darwin_image_builder d ON d.task_id = o.task_id
             WHERE d.status = 'running' AND o.lease_expires_at <= NOW(6)
               AND o.lease_token IS NOT NULL",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(during("recover abandoned tasks"))?;
        let mut recovered = Recovered::default();
        for (task_id, attempts, token) in expired {
            // Only claims make leases, and they make them for readable ids.
            let Ok(id) = task_id.parse::<TaskId>() else {
                continue;
            };
            let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
            let reason = (attempts >= max_attempts).then(|| abandoned(attempts));
            if self.take_away(&id, &token, reason.as_deref()).await? {
                recovered.add(id, reason.is_some());
            }
        }
        Ok(recovered)
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Task>> {
        sqlx::query_as::<_, TaskRow>(
            "SELECT d.task_id, app_name, image_tag, logs_url,
                    CAST(build_params AS CHAR) AS build_params, status, created_at,
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
            "SELECT d.task_id, app_name, image_tag, logs_url,
                    CAST(build_params AS CHAR) AS build_params, status, created_at,
                    updated_at, attempts, started_at, ended_at, error, commit_id, digest
             FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
             ORDER BY created_at, d.task_id",
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

/// Creates the database if the server does not know it. A user who may not create
/// databases can so use one that is there.
async fn create_database(settings: &MySqlSettings) -> Result<(), sqlx::Error> {
    let connected = settings
        .server()
        .database(&settings.database)
        .connect()
        .await;
    let unknown = match connected {
        Ok(connection) => return connection.close().await,
        Err(error) => error,
    };
    if mysql_error_number(&unknown) != Some(UNKNOWN_DATABASE) {
        return Err(unknown);
    }
    let mut connection = settings.server().connect().await?;
    let name = settings.database.replace('`', "``");
    let create = format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4");
    // An identifier cannot be bound; it is quoted above.
    connection.execute(AssertSqlSafe(create)).await?;
    connection.close().await
}

/// Brings the tables up to date, one replica at a time.
///
/// The lock is our own: sqlx asks for one with a negative time limit, which MariaDB answers
/// at once without giving it.
async fn migrate(pool: &MySqlPool) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(MD5(DATABASE()), ?)")
        .bind(MIGRATION_WAIT_SECONDS)
        .fetch_one(&mut *connection)
        .await?;
    if locked != Some(1) {
        let text = "another replica has not finished with the tables in time";
        return Err(sqlx::Error::Protocol(text.to_owned()).into());
    }
    let mut migrations = sqlx::migrate!("./migrations/mysql");
    migrations.dangerous_set_table_name("ocibuild_migrations");
    let result = migrations.set_locking(false).run(&mut *connection).await;
    // Closing the connection releases the lock, whatever happened before.
    connection.close().await?;
    result
}

fn mysql_error_number(error: &sqlx::Error) -> Option<u16> {
    let database_error = error.as_database_error()?;
    database_error
        .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
        .map(sqlx::mysql::MySqlDatabaseError::number)
}

fn microseconds(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// Moves a task from one state to another; gives false when it was not in the first.
async fn set_state(
    tx: &mut Transaction<'static, MySql>,
    id: &str,
    from: TaskState,
    to: TaskState,
) -> Result<bool> {
    sqlx::query("UPDATE darwin_image_builder SET status = ? WHERE task_id = ? AND status = ?")
        .bind(to.as_str())
        .bind(id)
        .bind(from.as_str())
        .execute(&mut **tx)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(during("set the state of a task"))
}
