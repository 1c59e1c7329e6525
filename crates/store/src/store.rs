//! What a task table can do, whoever keeps it.
//!
//! Every method is one short transaction. A claim gives a [`Lease`]; only its holder can
//! prolong, return or finish the task. Times are the database's own, so that replicas with
//! different clocks agree on which lease has expired.

use std::time::Duration;

use async_trait::async_trait;

use crate::{NewTask, Task, TaskId, TaskState};

/// The result of a table operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The task table. Its schema exists once the store could be opened.
#[async_trait]
pub trait TaskStore: Send + Sync + 'static {
    /// Adds a waiting task.
    async fn enqueue(&self, task: &NewTask) -> Result<()>;

    /// Gives the oldest waiting task to `owner` for the time of `lease`.
    async fn claim(&self, owner: &str, lease: Duration) -> Result<Option<Claim>>;

    /// Prolongs a lease to `time` from now. A lease that has expired but that nobody took
    /// over is good again: the work was not lost.
    async fn heartbeat(&self, lease: &Lease, time: Duration) -> Result<()>;

    /// Ends a task. Fails with [`StoreError::LeaseLost`] when another owner has it by now.
    async fn finish(&self, lease: &Lease, outcome: &Outcome) -> Result<()>;

    /// Gives a task back unbuilt: it waits again, at its old place, and the attempt does not count.
    async fn release(&self, lease: &Lease) -> Result<()>;

    /// Takes running tasks whose lease has expired from their owners: those with fewer than
    /// `max_attempts` attempts wait again, the others fail.
    async fn recover(&self, max_attempts: u32) -> Result<Recovered>;

    /// Finds one task.
    async fn get(&self, id: &TaskId) -> Result<Option<Task>>;

    /// Lists all tasks, oldest first.
    async fn list(&self) -> Result<Vec<Task>>;

    /// Checks that the database answers.
    async fn ping(&self) -> Result<()>;
}

/// A task that now belongs to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The task, already running.
    pub task: Task,
    /// Text of the Dockerfile that replaces the repository's.
    pub dockerfile: Option<String>,
    /// The right to work on it.
    pub lease: Lease,
}

/// The right to work on one task, until somebody else was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The task.
    pub task: TaskId,
    /// Distinguishes this claim from every other claim of the task.
    pub(crate) token: String,
}

impl Lease {
    pub(crate) fn new(task: TaskId) -> Self {
        let token = uuid::Uuid::new_v4().simple().to_string();
        Self { task, token }
    }
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The registry has confirmed the image.
    Completed {
        /// Digest of the manifest.
        digest: String,
        /// The commit that was built.
        commit: Option<String>,
    },
    /// There is no image.
    Failed {
        /// Why.
        reason: String,
        /// The commit that was to be built, if it was known by then.
        commit: Option<String>,
    },
}

/// What [`TaskStore::recover`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Tasks that wait again.
    pub requeued: Vec<TaskId>,
    /// Tasks that were begun too often and failed.
    pub failed: Vec<TaskId>,
}

impl Recovered {
    pub(crate) fn add(&mut self, id: TaskId, failed: bool) {
        let list = if failed {
            &mut self.failed
        } else {
            &mut self.requeued
        };
        list.push(id);
    }
}

/// Splits an outcome into state, error, digest and commit.
pub(crate) fn columns(outcome: &Outcome) -> (TaskState, Option<&str>, Option<&str>, Option<&str>) {
    match outcome {
        Outcome::Completed { digest, commit } => {
            (TaskState::Completed, None, Some(digest), commit.as_deref())
        }
        Outcome::Failed { reason, commit } => {
            (TaskState::Failed, Some(reason), None, commit.as_deref())
        }
    }
}

/// Turns "the row of the lease was not there" into its error.
pub(crate) fn held(lease: &Lease, found: bool) -> Result<()> {
    let lost = || StoreError::LeaseLost {
        task: lease.task.clone(),
    };
    found.then_some(()).ok_or_else(lost)
}

/// The reason that [`TaskStore::recover`] gives to a task that was begun too often.
pub(crate) fn abandoned(attempts: u32) -> String {
    format!("the worker that built this task disappeared, {attempts} times")
}

/// Why a table operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("cannot open the task database {name}")]
    Open {
        /// Its file, or its host, port and name.
        name: String,
        /// The cause.
        source: sqlx::Error,
    },
    /// The tables cannot be created or brought up to date.
    #[error("cannot prepare the tables of {name}")]
    Migrate {
        /// The database's file, or its host, port and name.
        name: String,
        /// The cause.
        source: sqlx::migrate::MigrateError,
    },
    /// A query failed.
    #[error("cannot {action}")]
    Query {
        /// What was being done.
        action: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
    /// The task does not belong to the caller any more.
    #[error("the lease of task {task} was lost")]
    LeaseLost {
        /// The task.
        task: TaskId,
    },
    /// A row holds what no task can hold.
    #[error("the row of task {task:?} has an invalid {column}")]
    Corrupt {
        /// The task's id, as it stands there.
        task: String,
        /// The column.
        column: &'static str,
    },
}

/// Names the action during which a query failed.
pub(crate) fn during(action: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Query { action, source }
}
