//! Tasks: queue one, ask for its state or its log's URL, list all.
//!
//! Keys, their order and the texts are what Darwin's clients were written against. Some
//! read the JSON with grep, so there is no space after a colon.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use ocibuild_store::{BuildParams, NewTask, StoreError, Task, TaskId, TaskState};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Detail, FieldError, ValidationErrors};
use super::form::BuildForm;
use super::validate::{BuildRequest, validate};
use crate::app::App;

/// How a request went: clients of Darwin look here rather than at the HTTP status.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    /// The answer holds what was asked for.
    Success,
    /// It does not; `message` says why.
    Failed,
}

/// The answer to a build request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Queued {
    status: Status,
    /// `id-` and 32 hexadecimal digits.
    task_id: String,
    /// Where the log can be read from now on.
    logs_url: String,
    message: &'static str,
}

/// The state of a task.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuildStatus {
    status: Status,
    /// `waiting`, `running`, `completed` or `failed`; empty when there is no such task.
    build_status: &'static str,
    message: &'static str,
}

/// Where the log of a task is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogsUrl {
    status: Status,
    logs_url: String,
    message: &'static str,
}

/// All tasks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskList {
    status: Status,
    data: Vec<ListedTask>,
    message: &'static str,
}

/// A task in a list; exactly these five keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedTask {
    task_id: String,
    app_name: String,
    image_tag: String,
    logs_url: String,
    /// `waiting`, `running`, `completed` or `failed`.
    status: &'static str,
}

/// The form of a build request, for the description of the API.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the form that `BuildForm` reads")]
pub(crate) struct BuildFormSchema {
    /// Name of the application.
    app_name: String,
    /// Tag of the image.
    image_tag: String,
    /// http or https URL of the Git repository.
    git_repo: String,
    /// Branch or tag; the default branch when absent.
    branch: Option<String>,
    /// Directory of the repository that is the context; its root when absent.
    app_dir: Option<String>,
    /// Dockerfile to use in place of the repository's; only in a multipart form.
    #[schema(value_type = Option<String>, format = Binary)]
    dockerfile: Option<Vec<u8>>,
}

const NO_SUCH_TASK: &str = "Task does not exist";
const TABLE_UNAVAILABLE: &str = "The task table is not available";
/// Stands in the table for the place where Darwin's builder keeps an uploaded Dockerfile.
const DOCKERFILE_IN_TABLE: &str = "ocibuild_task.dockerfile";

/// Queues a build.
#[utoipa::path(
    post,
    path = "/build_with_dockerfile",
    request_body(content = BuildFormSchema, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The build is queued", body = Queued),
        (status = 413, description = "The form is too large", body = Detail),
        (status = 422, description = "Fields are missing or wrong", body = ValidationErrors),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn build_with_dockerfile(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Queued>, ApiError> {
    let limit = app.config.limits.dockerfile_bytes;
    let form = BuildForm::read(request, limit).await?;
    let task = new_task(validate(form, limit)?, &app.config.public_url);
    enqueue(&app, &task).await?;
    app.queued.notify_one();
    tracing::info!(task = %task.id, app = task.app_name, tag = task.image_tag, "queued");
    Ok(Json(Queued {
        status: Status::Success,
        task_id: task.id.to_string(),
        logs_url: task.logs_url,
        message: "task has been added to queue",
    }))
}

/// Tells the state of a task.
#[utoipa::path(
    get,
    path = "/task/status",
    params(("task_id" = String, Query, description = "The task")),
    responses(
        (status = 200, description = "Its state, or FAILED", body = BuildStatus),
        (status = 422, description = "`task_id` is missing", body = ValidationErrors),
    )
)]
pub(crate) async fn status(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Json<BuildStatus>, ApiError> {
    let (status, build_status, message) = match find(&app, query.as_deref()).await? {
        Ok(task) => (Status::Success, TaskState::as_str(task.state), ""),
        Err(message) => (Status::Failed, "", message),
    };
    Ok(Json(BuildStatus {
        status,
        build_status,
        message,
    }))
}

/// Tells where the log of a task is.
#[utoipa::path(
    get,
    path = "/task/logs",
    params(("task_id" = String, Query, description = "The task")),
    responses(
        (status = 200, description = "The URL of its log, or FAILED", body = LogsUrl),
        (status = 422, description = "`task_id` is missing", body = ValidationErrors),
    )
)]
pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Json<LogsUrl>, ApiError> {
    let (status, logs_url, message) = match find(&app, query.as_deref()).await? {
        Ok(task) => (Status::Success, task.logs_url, ""),
        Err(message) => (Status::Failed, String::new(), message),
    };
    Ok(Json(LogsUrl {
        status,
        logs_url,
        message,
    }))
}

/// Lists all tasks, oldest first.
#[utoipa::path(
    get,
    path = "/task",
    responses((status = 200, description = "All tasks, or FAILED", body = TaskList))
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<TaskList> {
    let (status, tasks, message) = match app.store.list().await {
        Ok(tasks) => (Status::Success, tasks, ""),
        Err(error) => {
            log_store_error(&error);
            (Status::Failed, Vec::new(), TABLE_UNAVAILABLE)
        }
    };
    let data = tasks.into_iter().map(ListedTask::from).collect();
    Json(TaskList {
        status,
        data,
        message,
    })
}

impl From<Task> for ListedTask {
    fn from(task: Task) -> Self {
        Self {
            task_id: task.id.to_string(),
            app_name: task.app_name,
            image_tag: task.image_tag,
            logs_url: task.logs_url,
            status: task.state.as_str(),
        }
    }
}

fn new_task(request: BuildRequest, public_url: &str) -> NewTask {
    let id = TaskId::random();
    let docker_file_path = request
        .dockerfile
        .as_ref()
        .map(|_| DOCKERFILE_IN_TABLE.to_owned());
    NewTask {
        logs_url: format!("{public_url}/static/{id}.log"),
        app_name: request.app_name,
        image_tag: request.image_tag,
        params: BuildParams {
            git_repo: request.git_repo,
            branch: request.branch,
            app_dir: request.app_dir,
            docker_file_path: docker_file_path.unwrap_or_default(),
        },
        dockerfile: request.dockerfile,
        id,
    }
}

/// Puts a task into the table. Its log is there first: once it is in the table, a worker
/// may write to it.
async fn enqueue(app: &App, task: &NewTask) -> Result<(), ApiError> {
    if let Err(error) = app.logs.announce(&task.id) {
        tracing::warn!(task = %task.id, %error, "the log of a queued task cannot be made");
    }
    if let Err(error) = app.store.enqueue(task).await {
        log_store_error(&error);
        if let Err(error) = app.logs.withdraw(&task.id) {
            tracing::warn!(task = %task.id, %error, "the log of no task stays behind");
        }
        return Err(ApiError::TableUnavailable);
    }
    Ok(())
}

/// Finds the task of a query, or the message that says why there is none.
async fn find(app: &App, query: Option<&str>) -> Result<Result<Task, &'static str>, ApiError> {
    let text = task_id(query.unwrap_or_default())?;
    let Ok(id) = text.parse::<TaskId>() else {
        return Ok(Err(NO_SUCH_TASK));
    };
    Ok(match app.store.get(&id).await {
        Ok(task) => task.ok_or(NO_SUCH_TASK),
        Err(error) => {
            log_store_error(&error);
            Err(TABLE_UNAVAILABLE)
        }
    })
}

fn task_id(query: &str) -> Result<String, ApiError> {
    url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "task_id")
        .last()
        .map(|(_, value)| value.into_owned())
        .ok_or_else(|| ApiError::Invalid(vec![FieldError::missing("query", "task_id")]))
}

/// The client is told that the table is not available; why is for the operator.
fn log_store_error(error: &StoreError) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "the task table does not answer"
    );
}
