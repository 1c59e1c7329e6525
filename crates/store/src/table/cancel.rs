//! Ending tasks from outside.

use crate::database::{Database, Work};
use crate::statement::sql;
use crate::store::Result;
use crate::table::moves::{fail, lock};
use crate::{CancelRequest, Cancelled, FailureCode, TaskId, TaskState};

pub(super) async fn cancel<D: Database>(
    database: &D,
    id: &TaskId,
    reason: &str,
) -> Result<Cancelled> {
    let mut work = Work::transaction(database, "cancel a task").await?;
    let Some(row) = lock(&mut work, id.as_str()).await? else {
        work.commit().await?;
        return Ok(Cancelled::Unknown);
    };
    let cancelled = match row.state() {
        Some(TaskState::Running) if row.is_leased() => Cancelled::Requested,
        // Nobody would find a request for a task that Darwin's builder runs, or has left behind.
        Some(TaskState::Waiting | TaskState::Running) => Cancelled::Ended,
        Some(TaskState::Completed | TaskState::Failed) | None => Cancelled::TooLate,
    };
    if cancelled == Cancelled::Ended {
        let failure = (FailureCode::Cancelled, reason);
        fail(&mut work, id.as_str(), &row, failure).await?;
    }
    if cancelled != Cancelled::TooLate {
        let update = sql(
            "UPDATE ocibuild_task SET cancel_reason = COALESCE(cancel_reason, ?)
             WHERE task_id = ?",
        );
        work.execute(update.bind(reason).bind(id.as_str())).await?;
    }
    work.commit().await?;
    Ok(cancelled)
}

pub(super) async fn requests<D: Database>(database: &D, owner: &str) -> Result<Vec<CancelRequest>> {
    let mut work = Work::plain(database, "look for cancelled tasks").await?;
    let statement = sql("SELECT d.task_id, o.cancel_reason
         FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
         WHERE d.status = 'running' AND o.lease_owner = ? AND o.cancel_reason IS NOT NULL");
    let rows: Vec<(String, String)> = work.rows(statement.bind(owner)).await?;
    let request = |(task, reason): (String, String)| {
        let task = task.parse().ok()?;
        Some(CancelRequest { task, reason })
    };
    Ok(rows.into_iter().filter_map(request).collect())
}
