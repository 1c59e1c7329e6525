//! Deleting what is too old: logs and uploaded contexts, one at a time, so that no transaction
//! is long.

use std::collections::HashSet;
use std::time::Duration;

use crate::database::{Database, Work, microseconds};
use crate::statement::sql;
use crate::store::Result;
use crate::table::chunks::{CONTEXT, LOG};
use crate::table::row::size;
use crate::{Retention, TaskId};

/// How many rows are looked at together.
const BATCH: u32 = 200;

pub(super) async fn logs<D: Database>(database: &D, retention: &Retention) -> Result<Vec<TaskId>> {
    adopt_ends(database).await?;
    let mut pruned = Vec::new();
    let result = prune_logs(database, retention, &mut pruned).await;
    if let Err(error) = &result
        && !pruned.is_empty()
    {
        // The caller must hear of those that are gone; the others have their turn next time.
        tracing::warn!(%error, "not every old log was deleted");
        return Ok(pruned);
    }
    result.map(|()| pruned)
}

async fn prune_logs<D: Database>(
    database: &D,
    retention: &Retention,
    pruned: &mut Vec<TaskId>,
) -> Result<()> {
    loop {
        let old = oldest(database, Some(retention.age)).await?;
        for (id, _) in &old {
            prune_log(database, id, pruned).await?;
        }
        if old.is_empty() {
            break;
        }
    }
    let mut total = total_bytes(database).await?;
    while total > retention.total_bytes {
        let oldest = oldest(database, None).await?;
        if oldest.is_empty() {
            break;
        }
        for (id, length) in oldest {
            if total <= retention.total_bytes {
                break;
            }
            prune_log(database, &id, pruned).await?;
            total = total.saturating_sub(length);
        }
    }
    Ok(())
}

/// Notes when tasks ended that another program has ended: for them the time of the last change
/// counts.
async fn adopt_ends<D: Database>(database: &D) -> Result<()> {
    let mut work = Work::plain(database, "look for tasks that others ended").await?;
    let select = sql("SELECT d.task_id
         FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
         WHERE d.status IN ('completed', 'failed')
           AND o.log_length IS NOT NULL AND o.ended_at IS NULL");
    let rows: Vec<(String,)> = work.rows(select).await?;
    for (id,) in rows {
        let update = sql("UPDATE ocibuild_task
             SET ended_at = (SELECT d.updated_at FROM darwin_image_builder d WHERE d.task_id = ?)
             WHERE task_id = ? AND ended_at IS NULL AND lease_token IS NULL");
        work.execute(update.bind(id.as_str()).bind(id.as_str()))
            .await?;
    }
    Ok(())
}

/// Reads the logs whose tasks ended first, with their lengths; with `age` only those that ended
/// so long ago.
async fn oldest<D: Database>(database: &D, age: Option<Duration>) -> Result<Vec<(String, u64)>> {
    let mut work = Work::plain(database, "look for old logs").await?;
    let mut select = sql("SELECT task_id, log_length FROM ocibuild_task
         WHERE log_length IS NOT NULL AND ended_at IS NOT NULL");
    if let Some(age) = age {
        select = select
            .and("AND ended_at <= {earlier}")
            .bind(microseconds(age));
    }
    let select = select.and("ORDER BY ended_at LIMIT ?").bind(BATCH);
    let rows: Vec<(String, i64)> = work.rows(select).await?;
    Ok(rows
        .into_iter()
        .map(|(id, length)| (id, size(length)))
        .collect())
}

async fn total_bytes<D: Database>(database: &D) -> Result<u64> {
    let mut work = Work::plain(database, "measure the logs").await?;
    // A sum is a decimal number in MySQL.
    let select = sql("SELECT CAST(COALESCE(SUM(log_length), 0) AS SIGNED) FROM ocibuild_task");
    let (total,): (i64,) = work.row(select).await?.unwrap_or_default();
    Ok(size(total))
}

async fn prune_log<D: Database>(database: &D, id: &str, pruned: &mut Vec<TaskId>) -> Result<()> {
    let mut work = Work::transaction(database, "delete an old log").await?;
    let update = sql("UPDATE ocibuild_task SET log_length = NULL
         WHERE task_id = ? AND log_length IS NOT NULL AND ended_at IS NOT NULL");
    let found = work.execute(update.bind(id)).await? == 1;
    LOG.delete(&mut work, id).await?;
    work.commit().await?;
    pruned.extend(id.parse().ok().filter(|_| found));
    Ok(())
}

pub(super) async fn contexts<D: Database>(database: &D, age: Duration) -> Result<u64> {
    let needed = needed_contexts(database).await?;
    let mut pruned = 0;
    for id in old_contexts(database, age).await? {
        if !needed.contains(&id) && prune_context(database, &id, age).await? {
            pruned += 1;
        }
    }
    Ok(pruned)
}

async fn needed_contexts<D: Database>(database: &D) -> Result<HashSet<String>> {
    let mut work = Work::plain(database, "look for contexts in use").await?;
    let select = sql("SELECT o.context_id
         FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
         WHERE d.status IN ('waiting', 'running') AND o.context_id IS NOT NULL");
    let rows: Vec<(String,)> = work.rows(select).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

async fn old_contexts<D: Database>(database: &D, age: Duration) -> Result<Vec<String>> {
    let mut work = Work::plain(database, "look for old contexts").await?;
    let select = sql(
        "SELECT context_id FROM ocibuild_context WHERE used_at <= {earlier}
         ORDER BY used_at",
    );
    let rows: Vec<(String,)> = work.rows(select.bind(microseconds(age))).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Deletes a context, unless a new task has named it in the meantime.
async fn prune_context<D: Database>(database: &D, id: &str, age: Duration) -> Result<bool> {
    let mut work = Work::transaction(database, "delete an old context").await?;
    let delete = sql("DELETE FROM ocibuild_context
         WHERE context_id = ? AND used_at <= {earlier}");
    let found = work
        .execute(delete.bind(id).bind(microseconds(age)))
        .await?
        == 1;
    if found {
        CONTEXT.delete(&mut work, id).await?;
    }
    work.commit().await?;
    Ok(found)
}
