//! One build: submit, read, cancel, build again, push again.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use ocibuild_store::{Cancelled, NewTask, Task, TaskState};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::build::Build;
use super::find;
use super::submit::{self, SubmitBuild};
use crate::api::error::{ApiError, Detail, FieldError, ValidationErrors};
use crate::api::queue;
use crate::app::App;
use crate::auth::Principal;
use crate::request::{ContextKind, Request};

/// The longest reason for a cancellation.
const REASON_BYTES: usize = 1000;
/// Why a cancelled build fails, where nobody says more.
pub(crate) const CANCELLED: &str = "the build was cancelled";

/// Queues a build.
#[utoipa::path(
    post,
    path = "/v1/builds",
    operation_id = "submit_build",
    tag = "builds",
    request_body = SubmitBuild,
    responses(
        (status = 201, description = "The build is queued", body = Build, headers(("Location" = String, description = "The build"))),
        (status = 400, description = "The body cannot be read", body = Detail),
        (status = 413, description = "The body is too large", body = Detail),
        (status = 422, description = "Fields are missing or wrong", body = ValidationErrors),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Body(build): Body<SubmitBuild>,
) -> Result<Response, ApiError> {
    let task = submit::task(build, &app.config)?;
    if let Some(id) = &task.context {
        let context = app.store.context(id).await?;
        let usable = context.is_some_and(|context| {
            context.complete
                && who
                    .tenant()
                    .is_none_or(|name| context.tenant.as_deref() == Some(name))
        });
        if !usable {
            let error =
                FieldError::value("context.id", "there is no such context", Some(id.as_str()));
            return Err(ApiError::Invalid(vec![error]));
        }
    }
    create(&app, &who, task).await
}

/// Tells everything about a build.
#[utoipa::path(
    get,
    path = "/v1/builds/{id}",
    operation_id = "read_build",
    tag = "builds",
    params(("id" = String, Path, description = "The build")),
    responses(
        (status = 200, description = "The build with its steps", body = Build),
        (status = 404, description = "There is no such build", body = Detail),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Json<Build>, ApiError> {
    let task = find(&app, &who, &id).await?;
    Ok(Json(shown(&app, task).await?))
}

/// Why a build is to end.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CancelBuild {
    /// For the log and the build's error.
    reason: Option<String>,
}

/// Ends a build: one that waits at once, one that runs within two seconds.
#[utoipa::path(
    post,
    path = "/v1/builds/{id}/cancel",
    operation_id = "cancel_build",
    tag = "builds",
    params(("id" = String, Path, description = "The build")),
    request_body(content = Option<CancelBuild>),
    responses(
        (status = 200, description = "The build has failed now", body = Build),
        (status = 202, description = "The build is being stopped", body = Build),
        (status = 404, description = "There is no such build", body = Detail),
        (status = 409, description = "The build was over already", body = Detail),
        (status = 422, description = "The reason cannot be used", body = ValidationErrors),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
    OptionalBody(wish): OptionalBody<CancelBuild>,
) -> Result<Response, ApiError> {
    let task = find(&app, &who, &id).await?;
    let status = end(&app, &task, &reason(wish)?).await?;
    let task = find(&app, &who, &id).await?;
    Ok((status, Json(shown(&app, task).await?)).into_response())
}

/// Ends a build: it has failed now (200), or is being stopped (202).
pub(crate) async fn end(app: &App, task: &Task, reason: &str) -> Result<StatusCode, ApiError> {
    let status = match app.store.cancel(&task.id, reason).await? {
        Cancelled::Ended => StatusCode::OK,
        Cancelled::Requested => StatusCode::ACCEPTED,
        Cancelled::TooLate => return Err(ApiError::Conflict("The build was over already")),
        Cancelled::Unknown => return Err(ApiError::NotFound),
    };
    tracing::info!(task = %task.id, reason, "cancelled");
    app.metrics.cancelled();
    app.running.cancel(&task.id, reason);
    Ok(status)
}

fn reason(wish: Option<CancelBuild>) -> Result<String, ApiError> {
    let reason = wish.and_then(|wish| wish.reason).unwrap_or_default();
    let valid = reason.len() <= REASON_BYTES && !reason.contains(|c: char| c.is_control());
    if !valid {
        let message = format!("a reason is one line of at most {REASON_BYTES} bytes");
        return Err(ApiError::Invalid(vec![FieldError::value(
            "reason", &message, None,
        )]));
    }
    Ok(match reason.as_str() {
        "" => CANCELLED.to_owned(),
        reason => format!("{CANCELLED}: {reason}"),
    })
}

/// Queues the same build again, as a new one.
#[utoipa::path(
    post,
    path = "/v1/builds/{id}/retry",
    operation_id = "retry_build",
    tag = "builds",
    params(("id" = String, Path, description = "The build")),
    responses(
        (status = 201, description = "The new build is queued", body = Build),
        (status = 404, description = "There is no such build", body = Detail),
        (status = 409, description = "The build is not over, or its context is gone", body = Detail),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let task = find(&app, &who, &id).await?;
    let again = again(&app, task).await?;
    create(&app, &who, again).await
}

/// Makes a new task of one that is over, for the same tenant.
pub(crate) async fn again(app: &App, task: Task) -> Result<NewTask, ApiError> {
    if !task.state.is_final() {
        return Err(ApiError::Conflict("The build is not over"));
    }
    if let Some(context) = &task.context
        && app.store.context(context).await?.is_none()
    {
        return Err(ApiError::Conflict(
            "The uploaded context of the build is gone",
        ));
    }
    let dockerfile = app.store.dockerfile(&task.id).await?;
    Ok(NewTask {
        app_name: task.app_name,
        image_tag: task.image_tag,
        params: task.params,
        dockerfile,
        request: task.request,
        context: task.context,
        tenant: task.tenant,
        ..NewTask::default()
    })
}

/// Where an image is to be pushed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PushBuild {
    /// Names of the image, `registry/repository:tag`; those of the build where there are none.
    destinations: Vec<String>,
}

/// Pushes the image of a build again, without building it.
#[utoipa::path(
    post,
    path = "/v1/builds/{id}/push",
    operation_id = "push_image",
    tag = "builds",
    params(("id" = String, Path, description = "The build")),
    request_body(content = Option<PushBuild>),
    responses(
        (status = 201, description = "The push is queued, as a build of its own", body = Build),
        (status = 404, description = "There is no such build", body = Detail),
        (status = 409, description = "No registry has an image of the build", body = Detail),
        (status = 422, description = "A name cannot be used", body = ValidationErrors),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn push(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
    OptionalBody(wish): OptionalBody<PushBuild>,
) -> Result<Response, ApiError> {
    let task = find(&app, &who, &id).await?;
    let wish = wish.unwrap_or_default();
    submit::check_destinations(&wish.destinations)?;
    let Some(source) = task.pushed.first().filter(|_| task.state.is_final()) else {
        return Err(ApiError::Conflict("No registry has an image of the build"));
    };
    let before = task
        .request
        .as_deref()
        .and_then(|text| serde_json::from_str::<Request>(text).ok());
    let destinations = match wish.destinations.is_empty() {
        true => before.unwrap_or_default().destinations,
        false => wish.destinations,
    };
    let request = Request {
        context: ContextKind::Image {
            reference: format!("{}@{}", source.reference, source.digest),
        },
        destinations,
        ..Request::default()
    };
    let pushed = NewTask {
        app_name: task.app_name,
        image_tag: task.image_tag,
        request: Some(submit::text(&request)),
        tenant: task.tenant,
        ..NewTask::default()
    };
    create(&app, &who, pushed).await
}

/// Queues a task and shows it.
async fn create(app: &App, who: &Principal, task: NewTask) -> Result<Response, ApiError> {
    let tenant = task.tenant.or_else(|| who.tenant().map(str::to_owned));
    let task = queue::enqueue(app, NewTask { tenant, ..task }).await?;
    let stored = app.store.get(&task.id).await?.ok_or(ApiError::NotFound)?;
    let body = Json(shown(app, stored).await?);
    let mut response = (StatusCode::CREATED, body).into_response();
    // Relative to `/v1/builds` and to `/v1/builds/ID/retry` there is no one path; an absolute
    // one would miss the prefix of a proxy.
    let location = format!("{}/v1/builds/{}", app.config.root_path, task.id);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn shown(app: &App, task: Task) -> Result<Build, ApiError> {
    let ahead = match task.state {
        TaskState::Waiting => app.store.ahead(&task.id).await?,
        _ => None,
    };
    let steps = app.store.steps(&task.id).await?;
    Ok(Build::from(task).behind(ahead).with_steps(steps))
}

/// A JSON body.
pub(crate) struct Body<T>(T);

/// A JSON body that may be absent.
pub(crate) struct OptionalBody<T>(Option<T>);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(
        request: axum::extract::Request,
        state: &Arc<App>,
    ) -> Result<Self, ApiError> {
        let bytes = bytes(request, state).await?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(
        request: axum::extract::Request,
        state: &Arc<App>,
    ) -> Result<Self, ApiError> {
        let bytes = bytes(request, state).await?;
        let blank = bytes.iter().all(u8::is_ascii_whitespace);
        if blank {
            Ok(Self(None))
        } else {
            parse(&bytes).map(Self)
        }
    }
}

async fn bytes(request: axum::extract::Request, app: &Arc<App>) -> Result<Bytes, ApiError> {
    let limit = app.config.limits.dockerfile_bytes;
    Bytes::from_request(request, app).await.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::TooLarge { limit }
        } else {
            ApiError::UnreadableBody
        }
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("{}:{}", error.line(), error.column());
        let message = format!("not the JSON that is wanted: {error}");
        ApiError::Invalid(vec![FieldError::value(&place, &message, None)])
    })
}
