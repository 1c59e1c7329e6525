//! The numbers of the service, for Prometheus. They say nothing about single tasks, but a
//! tenant of a service with tokens has no business with them either.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, Detail};
use crate::app::App;
use crate::auth::Principal;

/// The text format of Prometheus.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Tells the numbers of this replica. With tokens, only to administrators.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "read_metrics",
    responses(
        (status = 200, description = "The numbers", content_type = "text/plain", body = String),
        (status = 404, description = "A tenant asks", body = Detail),
    )
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
) -> Result<Response, ApiError> {
    if who.tenant().is_some() {
        return Err(ApiError::NotFound);
    }
    let text = app.metrics.text(&app).await;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}
