//! What a task table can do, whoever keeps it.
//!
//! Every method is one short transaction. A claim gives a [`Lease`]; only its holder can
//! prolong, return or finish the task and add to its log. Times are the database's own, so
//! that replicas with different clocks agree on which lease has expired.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    CancelRequest, Cancelled, Context, ContextId, LogInfo, LogPart, NewTask, Outcome, Page,
    PageQuery, Progress, QueueState, Retention, Step, Task, TaskId,
};

/// The result of a table operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The task table. Its schema exists once the store could be opened.
#[async_trait]
pub trait TaskStore: Send + Sync + 'static {
    // ---- the queue

    /// Adds a waiting task, with the beginning of its log.
    async fn enqueue(&self, task: &NewTask) -> Result<()>;

    /// Gives the oldest waiting task to `owner` for the time of `lease`. With `per_app`, tasks
    /// of an application that has this many running are passed over.
    async fn claim(
        &self,
        owner: &str,
        lease: Duration,
        per_app: Option<u32>,
    ) -> Result<Option<Claim>>;

    /// Prolongs a lease to `time` from now. A lease that has expired but that nobody took
    /// over is good again: the work was not lost.
    async fn heartbeat(&self, lease: &Lease, time: Duration) -> Result<()>;

    /// Ends a task. Fails with [`StoreError::LeaseLost`] when another owner has it by now.
    async fn finish(&self, lease: &Lease, outcome: &Outcome) -> Result<()>;

    /// Gives a task back unbuilt: it waits again, at its old place, and the attempt does not count.
    async fn release(&self, lease: &Lease) -> Result<()>;

    /// Takes running tasks whose lease has expired from their owners: those with fewer than
    /// `max_attempts` attempts wait again, the others fail. A task whose cancellation was
    /// asked for fails with that reason.
    async fn recover(&self, max_attempts: u32) -> Result<Recovered>;

    /// As [`TaskStore::recover`], for every task of `owner`, expired or not: the owner has
    /// started anew and knows that its former self is gone.
    async fn recover_owner(&self, owner: &str, max_attempts: u32) -> Result<Recovered>;

    /// Tells how long the queue is.
    async fn queue(&self) -> Result<QueueState>;

    // ---- cancelling

    /// Asks for the end of a task: one that waits fails at once, one that runs is stopped by
    /// its owner, who finds the request with [`TaskStore::cancel_requests`].
    async fn cancel(&self, id: &TaskId, reason: &str) -> Result<Cancelled>;

    /// Lists the running tasks of `owner` that somebody wants to end.
    async fn cancel_requests(&self, owner: &str) -> Result<Vec<CancelRequest>>;

    // ---- reading

    /// Finds one task.
    async fn get(&self, id: &TaskId) -> Result<Option<Task>>;

    /// Gives the text of the Dockerfile that was uploaded with a task.
    async fn dockerfile(&self, id: &TaskId) -> Result<Option<String>>;

    /// Lists all tasks, oldest first.
    async fn list(&self) -> Result<Vec<Task>>;

    /// Lists the tasks that a query asks for, a page at a time.
    async fn page(&self, query: &PageQuery) -> Result<Page>;

    /// Tells how many waiting tasks come before this one; none when it does not wait.
    async fn ahead(&self, id: &TaskId) -> Result<Option<u64>>;

    /// Lists the steps of a task's latest attempt, in the order of their numbers.
    async fn steps(&self, id: &TaskId) -> Result<Vec<Step>>;

    // ---- logs

    /// Adds to the log and to the steps of a task. Gives the length that the log has in the
    /// table then: where [`Progress::offset`] is not its end, because an earlier call came
    /// through and its answer did not, nothing is added.
    async fn record(&self, lease: &Lease, progress: &Progress) -> Result<u64>;

    /// Tells how long a log is, and whether it can still grow. None where the table has no
    /// log of the task: it is unknown, another program's, or pruned.
    async fn log_info(&self, id: &TaskId) -> Result<Option<LogInfo>>;

    /// Reads a log from a byte on, up to `limit` bytes and at least one where there is one.
    async fn read_log(&self, id: &TaskId, offset: u64, limit: u64) -> Result<LogPart>;

    /// Deletes the logs of ended tasks that are too old, and then the oldest ones until all
    /// logs together are small enough. Gives the tasks that lost theirs.
    async fn prune_logs(&self, retention: &Retention) -> Result<Vec<TaskId>>;

    // ---- uploaded contexts

    /// Begins the upload of a context.
    async fn begin_context(&self, context: &Context) -> Result<()>;

    /// Adds to a context; `offset` is how much of it there is so far.
    async fn append_context(&self, id: &ContextId, offset: u64, data: &[u8]) -> Result<()>;

    /// Ends an upload: from now on a build can use the context, which has this size.
    async fn complete_context(&self, id: &ContextId, size: u64) -> Result<()>;

    /// Finds a context.
    async fn context(&self, id: &ContextId) -> Result<Option<Context>>;

    /// Reads a context from a byte on, up to `limit` bytes; nothing at its end.
    async fn read_context(&self, id: &ContextId, offset: u64, limit: u64) -> Result<Vec<u8>>;

    /// Deletes contexts that are older than `age`, unless a task that waits or runs needs them.
    /// Gives how many.
    async fn prune_contexts(&self, age: Duration) -> Result<u64>;

    // ---- the database

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

/// What [`TaskStore::recover`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Tasks that wait again.
    pub requeued: Vec<TaskId>,
    /// Tasks that were begun too often, or cancelled, and failed.
    pub failed: Vec<TaskId>,
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
    /// An upload does not continue where it stands.
    #[error("the context {context} has another length than {offset} bytes, or was completed")]
    ContextOffset {
        /// The context.
        context: ContextId,
        /// Where the caller wanted to go on.
        offset: u64,
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
