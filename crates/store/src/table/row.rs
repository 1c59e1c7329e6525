//! A row as both databases give it, and what it means.

use chrono::{DateTime, Utc};

use crate::{BuildParams, Cursor, FailureCode, StoreError, Task, TaskState};

/// The columns of [`TaskRow`]. MySQL gives JSON in a type of its own.
pub(super) const COLUMNS: &str = "d.task_id, d.app_name, d.image_tag, d.logs_url,
    CAST(d.build_params AS CHAR) AS build_params, d.status, d.created_at, d.updated_at,
    o.attempts, o.started_at, o.ended_at, o.error, o.commit_id, o.digest, o.error_code, o.pushed,
    o.request, o.context_id, o.tenant, o.trace_parent, o.lease_owner, o.cancel_reason";

/// Where those columns come from. A task that Darwin's builder queued has no row of ours; and
/// only in this direction can MySQL find the other row by its key, whatever collation the table
/// of Darwin's builder has.
pub(super) const TABLES: &str =
    "FROM darwin_image_builder d LEFT JOIN ocibuild_task o ON o.task_id = d.task_id";

/// A task as it stands in the tables.
#[derive(sqlx::FromRow)]
pub(super) struct TaskRow {
    pub(super) task_id: String,
    app_name: String,
    image_tag: String,
    logs_url: Option<String>,
    build_params: Option<String>,
    status: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    attempts: Option<i64>,
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    error: Option<String>,
    commit_id: Option<String>,
    digest: Option<String>,
    error_code: Option<String>,
    pushed: Option<String>,
    request: Option<String>,
    context_id: Option<String>,
    tenant: Option<String>,
    trace_parent: Option<String>,
    lease_owner: Option<String>,
    cancel_reason: Option<String>,
}

impl TaskRow {
    /// Gives the task; the table is shared, so that another program may have written anything.
    pub(super) fn into_task(self) -> Result<Task, StoreError> {
        let corrupt = |column| StoreError::Corrupt {
            task: self.task_id.clone(),
            column,
        };
        let id = self.task_id.parse().map_err(|_| corrupt("task_id"))?;
        let state = TaskState::from_text(&self.status).ok_or_else(|| corrupt("status"))?;
        let params = match &self.build_params {
            Some(json) => serde_json::from_str(json).map_err(|_| corrupt("build_params"))?,
            None => BuildParams::default(),
        };
        let pushed = match &self.pushed {
            Some(json) => serde_json::from_str(json).map_err(|_| corrupt("pushed"))?,
            None => Vec::new(),
        };
        let context = match &self.context_id {
            Some(text) => Some(text.parse().map_err(|_| corrupt("context_id"))?),
            None => None,
        };
        Ok(Task {
            id,
            app_name: self.app_name,
            image_tag: self.image_tag,
            logs_url: self.logs_url.unwrap_or_default(),
            params,
            state,
            created_at: self.created_at,
            updated_at: self.updated_at,
            attempts: count(self.attempts),
            started_at: self.started_at,
            ended_at: self.ended_at,
            error: self.error,
            commit: self.commit_id,
            digest: self.digest,
            // A newer version may know more kinds of failure; the task is readable without.
            error_code: self.error_code.as_deref().and_then(FailureCode::from_text),
            pushed,
            request: self.request,
            context,
            tenant: self.tenant,
            trace_parent: self.trace_parent,
            worker: self.lease_owner,
            cancel_reason: self.cancel_reason,
        })
    }

    /// Gives the place behind this row.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor {
            created_micros: self.created_at.timestamp_micros(),
            task_id: self.task_id.clone(),
        }
    }

    pub(super) fn app_name(&self) -> &str {
        &self.app_name
    }
}

/// Gives the tasks of a list; one bad row must not hide the others.
pub(super) fn readable_tasks(rows: Vec<TaskRow>) -> Vec<Task> {
    rows.into_iter()
        .filter_map(|row| {
            row.into_task()
                .inspect_err(|error| tracing::warn!(%error, "a row of the task table is left out"))
                .ok()
        })
        .collect()
}

/// Gives a count of attempts, which nothing but a claim changes.
pub(super) fn count(column: Option<i64>) -> u32 {
    let count = column.unwrap_or(0).max(0);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Gives a size or a place; the columns hold nothing below zero but marks.
pub(super) fn size(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}
