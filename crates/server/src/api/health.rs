//! Whether the service can do its work: it can as long as its task table answers and its
//! worker claims tasks.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;

/// A probe gives up soon, and so does its answer.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// The service is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Healthy {
    #[schema(example = "SUCCESS")]
    status: &'static str,
    #[schema(example = "OK")]
    message: &'static str,
}

/// The service cannot work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Unhealthy {
    detail: Unavailable,
}

/// Why the service cannot work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Unavailable {
    #[schema(example = "unavailable")]
    status: &'static str,
    message: &'static str,
}

/// Tells whether the service can work.
#[utoipa::path(
    get,
    path = "/healthcheck",
    operation_id = "check_health",
    responses(
        (status = 200, description = "It can", body = Healthy),
        (status = 503, description = "It cannot", body = Unhealthy),
    )
)]
pub(crate) async fn check(State(app): State<Arc<App>>) -> Response {
    match problem(&app).await {
        None => well(),
        Some(message) => unavailable(message),
    }
}

/// Tells whether the process is alive; nothing else is asked.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "check_life",
    responses((status = 200, description = "It is", body = Healthy))
)]
pub(crate) async fn live() -> Response {
    well()
}

/// Tells whether the service wants new requests: it can work and does not end.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "check_readiness",
    responses(
        (status = 200, description = "It does", body = Healthy),
        (status = 503, description = "It does not", body = Unhealthy),
    )
)]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.health.is_draining() {
        return unavailable("The service is shutting down");
    }
    check(State(app)).await
}

async fn problem(app: &App) -> Option<&'static str> {
    match tokio::time::timeout(TIME_LIMIT, app.store.ping()).await {
        Ok(Ok(())) if app.health.worker_is_silent() => {
            tracing::error!("the worker does not claim tasks any more");
            Some("The worker is not running")
        }
        Ok(Ok(())) => None,
        answer => {
            tracing::error!(?answer, "the task table does not answer");
            Some("Task table is not accessible")
        }
    }
}

fn well() -> Response {
    Json(Healthy {
        status: "SUCCESS",
        message: "OK",
    })
    .into_response()
}

fn unavailable(message: &'static str) -> Response {
    let detail = Unavailable {
        status: "unavailable",
        message,
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(Unhealthy { detail })).into_response()
}
