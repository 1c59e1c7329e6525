//! Logs and steps.
//!
//! `log_length` is NULL where the table keeps no log of a task: it never had one, or it was
//! pruned.

use crate::database::{Database, Work};
use crate::statement::sql;
use crate::store::{Lease, Result, StoreError};
use crate::table::chunks::LOG;
use crate::table::row::size;
use crate::{LogInfo, LogPart, Progress, Step, StepState, TaskId, TaskState};

pub(super) async fn record<D: Database>(
    database: &D,
    lease: &Lease,
    progress: &Progress,
) -> Result<u64> {
    let id = lease.task.as_str();
    let mut work = Work::transaction(database, "record the progress of a task").await?;
    let added = progress.log.len() as u64;
    // This locks the row, too: until the end nobody else adds anything.
    let update = sql("UPDATE ocibuild_task
         SET log_length = log_length + ?, commit_id = COALESCE(?, commit_id)
         WHERE task_id = ? AND lease_token = ? AND log_length = ?")
    .bind(added)
    .bind(progress.commit.as_deref())
    .bind(id)
    .bind(lease.token.as_str())
    .bind(progress.offset);
    let length = if work.execute(update).await? == 1 {
        LOG.add(&mut work, id, progress.offset, &progress.log)
            .await?;
        progress.offset + added
    } else {
        elsewhere(&mut work, lease, progress).await?
    };
    for step in &progress.steps {
        replace_step(&mut work, id, step).await?;
    }
    work.commit().await?;
    Ok(length)
}

/// Notes what does not depend on the end of the log, and gives that end.
async fn elsewhere<D: Database>(
    work: &mut Work<D>,
    lease: &Lease,
    progress: &Progress,
) -> Result<u64> {
    let update = sql("UPDATE ocibuild_task SET commit_id = COALESCE(?, commit_id)
         WHERE task_id = ? AND lease_token = ?")
    .bind(progress.commit.as_deref())
    .bind(lease.task.as_str())
    .bind(lease.token.as_str());
    let lost = || StoreError::LeaseLost {
        task: lease.task.clone(),
    };
    if work.execute(update).await? == 0 {
        return Err(lost());
    }
    let select = sql("SELECT log_length FROM ocibuild_task WHERE task_id = ?");
    let row: Option<(Option<i64>,)> = work.row(select.bind(lease.task.as_str())).await?;
    Ok(size(row.ok_or_else(lost)?.0.unwrap_or(0)))
}

async fn replace_step<D: Database>(work: &mut Work<D>, id: &str, step: &Step) -> Result<()> {
    let replace = sql("REPLACE INTO ocibuild_step
             (task_id, number, name, state, begin_millis, millis, layer, layer_size, error)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
    .bind(id)
    .bind(step.number)
    .bind(step.name.as_str())
    .bind(step.state.as_str())
    .bind(step.begin_millis)
    .bind(step.millis)
    .bind(step.layer.as_deref())
    .bind(step.layer_size)
    .bind(step.error.as_deref());
    work.execute(replace).await?;
    Ok(())
}

pub(super) async fn steps<D: Database>(database: &D, id: &TaskId) -> Result<Vec<Step>> {
    #[derive(sqlx::FromRow)]
    struct Row {
        number: i64,
        name: String,
        state: String,
        begin_millis: i64,
        millis: Option<i64>,
        layer: Option<String>,
        layer_size: Option<i64>,
        error: Option<String>,
    }
    let mut work = Work::plain(database, "read the steps of a task").await?;
    let statement = sql(
        "SELECT number, name, state, begin_millis, millis, layer, layer_size, error
         FROM ocibuild_step WHERE task_id = ? ORDER BY number",
    );
    let rows: Vec<Row> = work.rows(statement.bind(id.as_str())).await?;
    let corrupt = |column| StoreError::Corrupt {
        task: id.to_string(),
        column,
    };
    let step = |row: Row| {
        Ok(Step {
            number: u32::try_from(row.number).map_err(|_| corrupt("number of a step"))?,
            name: row.name,
            state: StepState::from_text(&row.state).ok_or_else(|| corrupt("state of a step"))?,
            begin_millis: size(row.begin_millis),
            millis: row.millis.map(size),
            layer: row.layer,
            layer_size: row.layer_size.map(size),
            error: row.error,
        })
    };
    rows.into_iter().map(step).collect()
}

pub(super) async fn info<D: Database>(database: &D, id: &TaskId) -> Result<Option<LogInfo>> {
    let mut work = Work::plain(database, "look at a log").await?;
    length(&mut work, id).await
}

pub(super) async fn read<D: Database>(
    database: &D,
    id: &TaskId,
    offset: u64,
    limit: u64,
) -> Result<LogPart> {
    let mut work = Work::plain(database, "read a log").await?;
    // First the length, then the bytes: so the part is never longer than what it belongs to.
    let Some(info) = length(&mut work, id).await? else {
        let info = LogInfo {
            length: 0,
            ended: true,
        };
        return Ok(LogPart {
            data: Vec::new(),
            info,
        });
    };
    let left = info.length.saturating_sub(offset);
    let data = if left == 0 {
        Vec::new()
    } else {
        let limit = limit.clamp(1, left);
        LOG.read(&mut work, id.as_str(), offset, limit).await?
    };
    Ok(LogPart { data, info })
}

async fn length<D: Database>(work: &mut Work<D>, id: &TaskId) -> Result<Option<LogInfo>> {
    let statement = sql("SELECT o.log_length, d.status
         FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id
         WHERE d.task_id = ?");
    let row: Option<(Option<i64>, String)> = work.row(statement.bind(id.as_str())).await?;
    let Some((Some(length), status)) = row else {
        return Ok(None);
    };
    Ok(Some(LogInfo {
        length: size(length),
        ended: TaskState::from_text(&status).is_none_or(TaskState::is_final),
    }))
}
