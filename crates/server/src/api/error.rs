//! What a refused request is told, in the shapes that FastAPI gave Darwin's clients.
//!
//! No refusal has a `task_id`: a client that finds none reports an error, while one that
//! finds an empty one waits for it for ever.

use axum::Json;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use ocibuild_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::logs::LogError;

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
    /// 409: the thing is not in the right state.
    Conflict(&'static str),
    /// 400: the body is not what it has to be.
    BadBody(&'static str),
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
    /// Where: `body` or `query`, and the field; deeper places of JSON follow.
    #[schema(example = json!(["body", "app_name"]))]
    loc: Vec<String>,
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
            loc: vec![place.to_owned(), field.to_owned()],
            msg: "Field required".to_owned(),
            input: None,
        }
    }

    /// A field of the form has a value that cannot be used.
    pub(crate) fn value(field: &str, message: &str, input: Option<&str>) -> Self {
        Self::at("body", field, message, input)
    }

    /// A value somewhere cannot be used; `field` may be a path with dots.
    pub(crate) fn at(place: &str, field: &str, message: &str, input: Option<&str>) -> Self {
        const SHOWN: usize = 200;
        let path = std::iter::once(place).chain(field.split('.'));
        Self {
            kind: "value_error",
            loc: path.map(str::to_owned).collect(),
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

impl Detail {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            detail: text.into(),
        }
    }
}

/// A question that the task table did not answer; why is for the operator's log.
impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        log_store_error(&error);
        Self::TableUnavailable
    }
}

/// A log that cannot be read.
impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "a log cannot be read"
        );
        Self::TableUnavailable
    }
}

/// The client is told that the table is not available; why is for the operator.
pub(crate) fn log_store_error(error: &StoreError) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "the task table does not answer"
    );
}

fn detail(status: StatusCode, text: impl Into<String>) -> Response {
    (status, Json(Detail::new(text))).into_response()
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
            Self::BadBody(text) => detail(StatusCode::BAD_REQUEST, text),
            Self::NotFound => detail(StatusCode::NOT_FOUND, "Not Found"),
            Self::Conflict(text) => detail(StatusCode::CONFLICT, text),
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
