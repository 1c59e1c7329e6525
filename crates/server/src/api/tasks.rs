//! Tasks: queue one, ask for its state or its log's URL, list all.
//!
//! Keys, their order and the texts are what Darwin's clients were written against. Some
//! read the JSON with grep, so there is no space after a colon.

use std::sync::Arc;

use axum::extract::{RawQuery, Request, State};
use axum::{Extension, Json};
use ocibuild_store::{BuildParams, NewTask, Task, TaskId, TaskState};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Detail, FieldError, ValidationErrors, log_store_error};
use super::form::BuildForm;
use super::queue::{self, DOCKERFILE_IN_TABLE};
use super::validate::{BuildFields, validate};
use crate::app::App;
use crate::auth::Principal;

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

/// Queues a build.
#[utoipa::path(
    post,
    path = "/build_with_dockerfile",
    request_body(content = BuildFormSchema, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The build is queued", body = Queued),
        (status = 400, description = "The body is no form", body = Detail),
        (status = 413, description = "The form is too large", body = Detail),
        (status = 422, description = "Fields are missing or wrong", body = ValidationErrors),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn build_with_dockerfile(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    request: Request,
) -> Result<Json<Queued>, ApiError> {
    let limit = app.config.limits.dockerfile_bytes;
    let form = BuildForm::read(request, limit).await?;
    let fields = validate(form, limit, &app.config.git)?;
    let task = queue::enqueue(&app, new_task(fields, &who)).await?;
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
    operation_id = "read_status",
    params(("task_id" = String, Query, description = "The task")),
    responses(
        (status = 200, description = "Its state, or FAILED", body = BuildStatus),
        (status = 422, description = "`task_id` is missing", body = ValidationErrors),
    )
)]
pub(crate) async fn status(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    RawQuery(query): RawQuery,
) -> Result<Json<BuildStatus>, ApiError> {
    let (status, build_status, message) = match find(&app, &who, query.as_deref()).await? {
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
    operation_id = "find_log",
    params(("task_id" = String, Query, description = "The task")),
    responses(
        (status = 200, description = "The URL of its log, or FAILED", body = LogsUrl),
        (status = 422, description = "`task_id` is missing", body = ValidationErrors),
    )
)]
pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    RawQuery(query): RawQuery,
) -> Result<Json<LogsUrl>, ApiError> {
    let (status, logs_url, message) = match find(&app, &who, query.as_deref()).await? {
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
    operation_id = "list_tasks",
    responses((status = 200, description = "All tasks, or FAILED", body = TaskList))
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
) -> Json<TaskList> {
    let (status, tasks, message) = match app.store.list().await {
        Ok(tasks) => (Status::Success, tasks, ""),
        Err(error) => {
            log_store_error(&error);
            (Status::Failed, Vec::new(), TABLE_UNAVAILABLE)
        }
    };
    let seen = tasks.into_iter().filter(|task| who.sees(task));
    let data = seen.map(ListedTask::from).collect();
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

fn new_task(fields: BuildFields, who: &Principal) -> NewTask {
    let docker_file_path = fields
        .dockerfile
        .as_ref()
        .map(|_| DOCKERFILE_IN_TABLE.to_owned());
    NewTask {
        app_name: fields.app_name,
        image_tag: fields.image_tag,
        params: BuildParams {
            git_repo: fields.git_repo,
            branch: fields.branch,
            app_dir: fields.app_dir,
            docker_file_path: docker_file_path.unwrap_or_default(),
        },
        dockerfile: fields.dockerfile,
        tenant: who.tenant().map(str::to_owned),
        ..NewTask::default()
    }
}

/// Finds the task of a query, or the message that says why there is none.
async fn find(
    app: &App,
    who: &Principal,
    query: Option<&str>,
) -> Result<Result<Task, &'static str>, ApiError> {
    let text = task_id(query.unwrap_or_default())?;
    let Ok(id) = text.parse::<TaskId>() else {
        return Ok(Err(NO_SUCH_TASK));
    };
    Ok(match app.store.get(&id).await {
        Ok(task) => task.filter(|task| who.sees(task)).ok_or(NO_SUCH_TASK),
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
