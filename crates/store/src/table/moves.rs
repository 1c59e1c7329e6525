//! How a task goes from one state to another: under the lock of its rows.

use crate::database::{Database, Work};
use crate::statement::sql;
use crate::store::{Lease, Result, StoreError};
use crate::table::chunks::LOG;
use crate::table::row::{count, size};
use crate::{FailureCode, TaskState};

/// What decides about a task, read while its rows are locked.
#[derive(sqlx::FromRow)]
pub(super) struct Locked {
    status: String,
    /// None where the task has no row of ours.
    attempts: Option<i64>,
    lease_token: Option<String>,
    lease_owner: Option<String>,
    cancel_reason: Option<String>,
    log_length: Option<i64>,
    expired: i64,
    ended: i64,
}

impl Locked {
    /// Where the task stands; none where another program has written something else.
    pub(super) fn state(&self) -> Option<TaskState> {
        TaskState::from_text(&self.status)
    }

    pub(super) fn attempts(&self) -> u32 {
        count(self.attempts)
    }

    /// Tells whether somebody has it, so that nobody else may go on.
    pub(super) fn is_leased(&self) -> bool {
        self.lease_token.is_some()
    }

    pub(super) fn is_owned_by(&self, owner: &str) -> bool {
        self.is_leased() && self.lease_owner.as_deref() == Some(owner)
    }

    pub(super) fn is_expired(&self) -> bool {
        self.is_leased() && self.expired != 0
    }

    /// The wish to end it, unless it is over: somebody may have put a task that was cancelled
    /// back into the queue by hand.
    pub(super) fn cancel_reason(&self) -> Option<&str> {
        self.cancel_reason.as_deref().filter(|_| self.ended == 0)
    }
}

/// Locks a task; none when there is no such task.
pub(super) async fn lock<D: Database>(work: &mut Work<D>, id: &str) -> Result<Option<Locked>> {
    let statement = sql("SELECT d.status, o.attempts, o.lease_token, o.lease_owner,
             o.cancel_reason, o.log_length,
             CASE WHEN o.lease_expires_at <= {now} THEN 1 ELSE 0 END AS expired,
             CASE WHEN o.ended_at IS NULL THEN 0 ELSE 1 END AS ended
         FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
         WHERE d.task_id = ? {lock}");
    work.row(statement.bind(id)).await
}

/// Locks the task of a lease, if the lease still counts.
pub(super) async fn lock_leased<D: Database>(work: &mut Work<D>, lease: &Lease) -> Result<Locked> {
    let running = |row: &Locked| {
        row.state() == Some(TaskState::Running)
            && row.lease_token.as_deref() == Some(lease.token.as_str())
    };
    lock(work, lease.task.as_str())
        .await?
        .filter(running)
        .ok_or_else(|| StoreError::LeaseLost {
            task: lease.task.clone(),
        })
}

/// Makes the row of ours where a locked task has none.
pub(super) async fn ensure_own_row<D: Database>(
    work: &mut Work<D>,
    id: &str,
    row: &Locked,
) -> Result<()> {
    if row.attempts.is_none() {
        let insert = sql("INSERT INTO ocibuild_task (task_id) VALUES (?)");
        work.execute(insert.bind(id)).await?;
    }
    Ok(())
}

/// Sets the state of a locked task.
pub(super) async fn set_state<D: Database>(
    work: &mut Work<D>,
    id: &str,
    state: TaskState,
) -> Result<()> {
    let update = sql(
        "UPDATE darwin_image_builder SET status = ?, updated_at = {now}
         WHERE task_id = ?",
    );
    work.execute(update.bind(state.as_str()).bind(id)).await?;
    Ok(())
}

/// Fails a locked task that nobody builds any more, and says so in its log.
pub(super) async fn fail<D: Database>(
    work: &mut Work<D>,
    id: &str,
    row: &Locked,
    (code, reason): (FailureCode, &str),
) -> Result<()> {
    set_state(work, id, TaskState::Failed).await?;
    ensure_own_row(work, id, row).await?;
    let update = sql("UPDATE ocibuild_task
         SET lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL,
             ended_at = {now}, error = ?, error_code = ?
         WHERE task_id = ?");
    work.execute(update.bind(reason).bind(code.as_str()).bind(id))
        .await?;
    // The reason may be somebody's text: it stays one line.
    let line = format!("Build failed: {}\n", reason.replace(['\n', '\r'], " "));
    add_line(work, id, row, &line).await
}

/// Puts a locked task back into the queue after its worker has disappeared.
pub(super) async fn wait_again<D: Database>(
    work: &mut Work<D>,
    id: &str,
    row: &Locked,
) -> Result<()> {
    set_state(work, id, TaskState::Waiting).await?;
    let update = sql("UPDATE ocibuild_task
         SET lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
         WHERE task_id = ?");
    work.execute(update.bind(id)).await?;
    let line = "The worker that built this task disappeared; it waits again\n";
    add_line(work, id, row, line).await
}

/// Adds a line to the log of a locked task.
async fn add_line<D: Database>(
    work: &mut Work<D>,
    id: &str,
    row: &Locked,
    line: &str,
) -> Result<()> {
    let end = size(row.log_length.unwrap_or(0));
    LOG.add(work, id, end, line.as_bytes()).await?;
    let update = sql("UPDATE ocibuild_task SET log_length = ? WHERE task_id = ?");
    let length = end + line.len() as u64;
    work.execute(update.bind(length).bind(id)).await?;
    Ok(())
}
