//! What a refused request is told, in the shapes that FastAPI gave Darwin's clients.
//!
//! No refusal has a `task_id`: a client that finds none reports an error, while one that
//! finds an empty one waits for it for ever.

use axum::Json;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// 422: fields are missing or wrong.
    Invalid(Vec<FieldError>),
    /// 400: the body cannot be read.
    UnreadableBody,
    /// 413: the body is larger than allowed.
    TooLarge {
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// 404: there is no such thing.
    NotFound,
    /// 503: the task table does not answer; its error is in the service's log.
    TableUnavailable,
}

/// One field that is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// What is wrong: `missing` or `value_error`.
    #[serde(rename = "type")]
    #[schema(example = "missing")]
    kind: &'static str,
    /// Where: `body` or `query`, and the field.
    loc: [&'static str; 2],
    /// What is wrong, for people.
    #[schema(example = "Field required")]
    msg: String,
    /// The value that was sent.
    input: Option<String>,
}

impl FieldError {
    /// A required field is absent or empty.
    pub(crate) fn missing(place: &'static str, field: &'static str) -> Self {
        Self {
            kind: "missing",
            loc: [place, field],
            msg: "Field required".to_owned(),
            input: None,
        }
    }

    /// A field of the form has a value that cannot be used.
    pub(crate) fn value(field: &'static str, message: &str, input: Option<&str>) -> Self {
        const SHOWN: usize = 200;
        Self {
            kind: "value_error",
            loc: ["body", field],
            msg: format!("Value error, {message}"),
            input: input.map(|text| text.chars().take(SHOWN).collect()),
        }
    }
}

/// The body of a 422.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValidationErrors {
    /// Every field that is missing or wrong.
    detail: Vec<FieldError>,
}

/// The body of every other refusal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detail {
    /// What is wrong.
    detail: String,
}

fn detail(status: StatusCode, text: impl Into<String>) -> Response {
    (
        status,
        Json(Detail {
            detail: text.into(),
        }),
    )
        .into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Invalid(errors) => {
                let body = Json(ValidationErrors { detail: errors });
                (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
            }
            Self::UnreadableBody => detail(
                StatusCode::BAD_REQUEST,
                "There was an error parsing the body",
            ),
            Self::TooLarge { limit } => {
                let text = format!("The form is larger than {limit} bytes");
                detail(StatusCode::PAYLOAD_TOO_LARGE, text)
            }
            Self::NotFound => detail(StatusCode::NOT_FOUND, "Not Found"),
            Self::TableUnavailable => detail(
                StatusCode::SERVICE_UNAVAILABLE,
                "The task table is not available",
            ),
        }
    }
}

/// Answers where no route is. As with FastAPI, a slash too many is led to the route without.
pub(crate) async fn no_route(uri: Uri) -> Response {
    const ROUTES: [&str; 6] = [
        "/build_with_dockerfile",
        "/task",
        "/task/status",
        "/task/logs",
        "/health",
        "/healthcheck",
    ];
    let Some(route) = uri
        .path()
        .strip_suffix('/')
        .filter(|path| ROUTES.contains(path))
    else {
        return ApiError::NotFound.into_response();
    };
    // Relative, so that it also holds behind a proxy that strips a prefix: `/x/task/` asks
    // for `../task`.
    let name = route.rsplit('/').next().unwrap_or_default();
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let location = format!("../{name}{query}");
    (
        StatusCode::TEMPORARY_REDIRECT,
        [(header::LOCATION, location)],
    )
        .into_response()
}

/// Answers a method that a route does not have.
pub(crate) async fn wrong_method() -> Response {
    detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}
