//! The error document of the specification ("Error Codes").

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::StoreError;

/// A request that is refused.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn unsupported() -> Self {
        let text = "the registry does not do this";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", text)
    }

    pub(super) fn unauthorized() -> Self {
        let text = "the registry wants a user name and a password";
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", text)
    }

    pub(super) fn denied(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", text)
    }

    /// Not 413: a client would try again with less at a time.
    pub(super) fn quota(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", text)
    }

    pub(super) fn no_such_page() -> Self {
        let text = "the path is not one of the registry API";
        Self::new(StatusCode::NOT_FOUND, "NAME_INVALID", text)
    }

    pub(super) fn internal() -> Self {
        let text = "the registry cannot do this now";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", text)
    }

    pub(super) fn name_invalid() -> Self {
        let text = "the repository name is not valid";
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", text)
    }

    pub(super) fn name_unknown() -> Self {
        let text = "there is no such repository";
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", text)
    }

    pub(super) fn digest_invalid(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", text)
    }

    pub(super) fn blob_unknown() -> Self {
        let text = "the repository has no such blob";
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", text)
    }

    pub(super) fn range_unsatisfiable() -> Self {
        let text = "the range lies outside of the blob";
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", text)
    }

    pub(super) fn upload_unknown() -> Self {
        let text = "there is no such upload";
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", text)
    }

    pub(super) fn upload_broken() -> Self {
        let text = "the body of the request broke off";
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", text)
    }

    pub(super) fn out_of_order() -> Self {
        let text = "the chunk does not begin where the upload ends";
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "BLOB_UPLOAD_INVALID",
            text,
        )
    }

    pub(super) fn size_invalid() -> Self {
        let text = "the chunk does not have the size of its Content-Range";
        Self::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", text)
    }

    pub(super) fn manifest_unknown() -> Self {
        let text = "the repository has no such manifest";
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", text)
    }

    pub(super) fn manifest_invalid(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", text)
    }

    pub(super) fn manifest_too_large() -> Self {
        let text = "the manifest is larger than 4 MiB";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", text)
    }

    pub(super) fn reference_missing(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", text)
    }
}

impl From<StoreError> for Failure {
    /// What went wrong inside goes to the log; the client learns only that it did.
    fn from(error: StoreError) -> Self {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(%error, ?cause, "the store failed");
        Self::internal()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({"errors": [{"code": self.code, "message": self.message}]});
        let headers: HeaderMap = self.headers.into_iter().collect();
        (self.status, headers, Json(body)).into_response()
    }
}
