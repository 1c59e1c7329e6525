//! A row as both databases give it, and what it means.

use chrono::{DateTime, Utc};

use crate::{BuildParams, StoreError, Task, TaskState};

/// The columns that both databases select, under these names.
#[derive(sqlx::FromRow)]
pub(crate) struct TaskRow {
    pub(crate) task_id: String,
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
}

impl TaskRow {
    /// Gives the task; the table is shared, so that another program may have written anything.
    pub(crate) fn into_task(self) -> Result<Task, StoreError> {
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
        Ok(Task {
            id,
            app_name: self.app_name,
            image_tag: self.image_tag,
            logs_url: self.logs_url.unwrap_or_default(),
            params,
            state,
            created_at: self.created_at,
            updated_at: self.updated_at,
            attempts: self
                .attempts
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(0),
            started_at: self.started_at,
            ended_at: self.ended_at,
            error: self.error,
            commit: self.commit_id,
            digest: self.digest,
        })
    }
}

/// Gives the tasks of a list; one bad row must not hide the others.
pub(crate) fn readable_tasks(rows: Vec<TaskRow>) -> Vec<Task> {
    rows.into_iter()
        .filter_map(|row| {
            row.into_task()
                .inspect_err(|error| tracing::warn!(%error, "a row of the task table is left out"))
                .ok()
        })
        .collect()
}
