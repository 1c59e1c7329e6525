//! Blobs: reading, whole or in part, and deleting.

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::failure::Failure;
use super::range::{Wanted, wanted};
use super::route::Name;
use super::{Call, blocking, header};
use crate::Digest;

pub(super) const CONTENT_DIGEST: &str = "docker-content-digest";
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// `GET` and `HEAD`.
pub(super) async fn get(call: Call, name: Name, digest: Digest) -> Result<Response, Failure> {
    let store = call.store.clone();
    let is_question = call.method == Method::HEAD;
    let opened = blocking(move || {
        if is_question && !store.keep_blob(&name, &digest)? {
            return Ok(None);
        }
        store.open_blob(&name, &digest)
    })
    .await?;
    let (file, size) = opened.ok_or_else(Failure::blob_unknown)?;
    let range = call
        .headers
        .get(RANGE)
        .and_then(|value| value.to_str().ok());
    let (status, first, count) = match wanted(range, size) {
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part(first, count) => (StatusCode::PARTIAL_CONTENT, first, count),
        Wanted::Unsatisfiable => {
            let whole = header(format!("bytes */{size}"));
            return Err(Failure::range_unsatisfiable().with_header(CONTENT_RANGE, whole));
        }
    };
    let body = match call.method == Method::HEAD {
        true => Body::empty(),
        false => Body::from_stream(crate::stream::read(file, first, count)),
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, OCTETS);
    headers.insert(CONTENT_LENGTH, count.into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ETAG, header(format!("\"{digest}\"")));
    headers.insert(CONTENT_DIGEST, header(digest.to_string()));
    if status == StatusCode::PARTIAL_CONTENT {
        let last = first + count.saturating_sub(1);
        let range = header(format!("bytes {first}-{last}/{size}"));
        headers.insert(CONTENT_RANGE, range);
    }
    Ok(response)
}

/// `DELETE`.
pub(super) async fn delete(call: Call, name: Name, digest: Digest) -> Result<Response, Failure> {
    match blocking(move || call.store.unlink_blob(&name, &digest)).await? {
        true => Ok(StatusCode::ACCEPTED.into_response()),
        false => Err(Failure::blob_unknown()),
    }
}

/// Answers that a repository now has a blob.
pub(super) fn created(name: &Name, digest: &Digest) -> Response {
    let headers = [
        ("location", header(format!("/v2/{name}/blobs/{digest}"))),
        (CONTENT_DIGEST, header(digest.to_string())),
    ];
    (StatusCode::CREATED, headers).into_response()
}
