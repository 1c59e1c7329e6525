//! Putting a task into the table: the same for every route that asks for a build.

use ocibuild_store::{NewTask, TaskId};

use super::error::ApiError;
use crate::app::App;
use crate::traces;

/// Stands in the table for the place where Darwin's builder keeps an uploaded Dockerfile.
pub(super) const DOCKERFILE_IN_TABLE: &str = "ocibuild_task.dockerfile";

/// Puts a task into the table, with the first line of its log, and wakes the worker.
pub(crate) async fn enqueue(app: &App, task: NewTask) -> Result<NewTask, ApiError> {
    let id = TaskId::random();
    let task = NewTask {
        logs_url: format!("{}/static/{id}.log", app.config.public_url),
        log: format!("Task {id} waits for a free builder\n"),
        trace_parent: traces::trace_parent(),
        id,
        ..task
    };
    app.store.enqueue(&task).await?;
    app.queued.notify_one();
    app.metrics.queued();
    tracing::info!(task = %task.id, app = task.app_name, tag = task.image_tag, "queued");
    Ok(task)
}
