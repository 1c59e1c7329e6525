//! Taking tasks from owners that are gone.

use crate::database::{Database, Work, retried};
use crate::statement::sql;
use crate::store::{Recovered, Result, abandoned};
use crate::table::moves::{Locked, fail, lock, wait_again};
use crate::{FailureCode, TaskId, TaskState};

/// Whose tasks are taken away.
#[derive(Clone, Copy)]
pub(super) enum Whose<'a> {
    /// Those of anybody who did not prolong the lease.
    Expired,
    /// All of one owner.
    Owner(&'a str),
}

impl Whose<'_> {
    fn includes(self, row: &Locked) -> bool {
        match self {
            Self::Expired => row.is_expired(),
            Self::Owner(owner) => row.is_owned_by(owner),
        }
    }
}

/// What becomes of a task that was taken away.
enum Fate {
    Kept,
    Requeued,
    Failed,
}

/// Takes the tasks of `whose` away, each in a transaction of its own.
pub(super) async fn recover<D: Database>(
    database: &D,
    whose: Whose<'_>,
    max_attempts: u32,
) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    for id in suspects(database, whose).await? {
        match retried(|| take_away(database, &id, whose, max_attempts)).await? {
            Fate::Kept => {}
            Fate::Requeued => recovered.requeued.push(id),
            Fate::Failed => recovered.failed.push(id),
        }
    }
    Ok(recovered)
}

async fn suspects<D: Database>(database: &D, whose: Whose<'_>) -> Result<Vec<TaskId>> {
    let mut work = Work::plain(database, "look for abandoned tasks").await?;
    let statement = sql("SELECT d.task_id
         FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
         WHERE d.status = 'running' AND o.lease_token IS NOT NULL");
    let statement = match whose {
        Whose::Expired => statement.and("AND o.lease_expires_at <= {now}"),
        Whose::Owner(owner) => statement.and("AND o.lease_owner = ?").bind(owner),
    };
    let statement = statement.and("ORDER BY d.created_at, d.{arrival}");
    let rows: Vec<(String,)> = work.rows(statement).await?;
    // Only claims make leases, and they make them for readable ids.
    Ok(rows.iter().filter_map(|(id,)| id.parse().ok()).collect())
}

async fn take_away<D: Database>(
    database: &D,
    id: &TaskId,
    whose: Whose<'_>,
    max_attempts: u32,
) -> Result<Fate> {
    let mut work = Work::transaction(database, "recover an abandoned task").await?;
    // The owner may have prolonged the lease, or finished, in the meantime.
    let Some(row) = lock(&mut work, id.as_str())
        .await?
        .filter(|row| row.state() == Some(TaskState::Running) && whose.includes(row))
    else {
        work.commit().await?;
        return Ok(Fate::Kept);
    };
    let attempts = row.attempts();
    let fate = if let Some(reason) = row.cancel_reason() {
        let failure = (FailureCode::Cancelled, reason);
        fail(&mut work, id.as_str(), &row, failure).await?;
        Fate::Failed
    } else if attempts >= max_attempts {
        let failure = (FailureCode::Abandoned, &*abandoned(attempts));
        fail(&mut work, id.as_str(), &row, failure).await?;
        Fate::Failed
    } else {
        wait_again(&mut work, id.as_str(), &row).await?;
        Fate::Requeued
    };
    work.commit().await?;
    Ok(fate)
}
