//! The files beside the pages: nothing is asked of anybody but this service.

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::frame::{Failure, PROTECTION};
use crate::api::error::ApiError;

/// Name, type and text of every file.
const FILES: [(&str, &str, &str); 4] = [
    (
        "page.css",
        "text/css; charset=utf-8",
        include_str!("page.css"),
    ),
    (
        "list.js",
        "text/javascript; charset=utf-8",
        include_str!("list.js"),
    ),
    (
        "build.js",
        "text/javascript; charset=utf-8",
        include_str!("build.js"),
    ),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// Gives a file.
pub(crate) async fn asset(Path(name): Path<String>) -> Result<Response, Failure> {
    let file = FILES.iter().find(|(known, ..)| *known == name);
    let &(_, content_type, text) = file.ok_or(Failure::below("../", ApiError::NotFound))?;
    // Without a validator, but small: a new version of the service has new files at once.
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((PROTECTION, headers, text).into_response())
}
