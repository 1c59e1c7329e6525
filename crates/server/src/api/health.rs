//! Whether the service can do its work: it can as long as its task table answers.

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
    responses(
        (status = 200, description = "It can", body = Healthy),
        (status = 503, description = "It cannot", body = Unhealthy),
    )
)]
pub(crate) async fn check(State(app): State<Arc<App>>) -> Response {
    match tokio::time::timeout(TIME_LIMIT, app.store.ping()).await {
        Ok(Ok(())) => Json(Healthy {
            status: "SUCCESS",
            message: "OK",
        })
        .into_response(),
        answer => {
            tracing::error!(?answer, "the task table does not answer");
            let message = "Task table is not accessible";
            let detail = Unavailable {
                status: "unavailable",
                message,
            };
            (StatusCode::SERVICE_UNAVAILABLE, Json(Unhealthy { detail })).into_response()
        }
    }
}
