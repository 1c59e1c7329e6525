//! The log of a task as a text file, whole or in part, while it grows.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use futures::stream::{self, StreamExt};
use ocibuild_store::TaskId;

use super::error::{ApiError, Detail};
use crate::app::App;
use crate::auth::Principal;
use crate::logs::LogReader;

/// Gives the log of a task as it is now. Ask again, or for the rest, to follow it.
#[utoipa::path(
    get,
    path = "/static/{file}",
    operation_id = "read_log_file",
    params(("file" = String, Path, description = "`{task_id}.log`")),
    responses(
        (status = 200, description = "The log so far", content_type = "text/plain", body = String),
        (status = 206, description = "The range that was asked for", content_type = "text/plain", body = String),
        (status = 304, description = "The log is still the same"),
        (status = 404, description = "There is no such log", body = Detail),
        (status = 416, description = "The log does not reach so far"),
    )
)]
pub(crate) async fn file(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = name
        .strip_suffix(".log")
        .and_then(|id| id.parse::<TaskId>().ok());
    let id = id.ok_or(ApiError::NotFound)?;
    if who.tenant().is_some() {
        let task = app.store.get(&id).await?;
        task.filter(|task| who.sees(task))
            .ok_or(ApiError::NotFound)?;
    }
    let log = app.logs.open(&id).await?.ok_or(ApiError::NotFound)?;
    Ok(answer(log, &headers))
}

/// The length is fixed at the beginning, because an answer has to say it before the log
/// stops growing. It is also all that tells one state of a log from another.
fn answer(log: LogReader, headers: &HeaderMap) -> Response {
    let length = log.info.length;
    let tag = format!("\"{length:x}\"");
    let common = [
        (CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (ETAG, tag.clone()),
    ];
    if text(headers, &IF_NONE_MATCH).is_some_and(|known| known.contains(&tag)) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let range = text(headers, &RANGE).map_or(Wanted::All, |range| Wanted::parse(range, length));
    let (status, first, count) = match range {
        Wanted::All => (StatusCode::OK, 0, length),
        Wanted::Part { first, count } => (StatusCode::PARTIAL_CONTENT, first, count),
        Wanted::Beyond => {
            let range = [(CONTENT_RANGE, format!("bytes */{length}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, range, common).into_response();
        }
    };
    let size = [(CONTENT_LENGTH, count.to_string())];
    let body = Body::from_stream(part(log, first, count));
    let mut response = (status, common, size, body).into_response();
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(range) = format!("bytes {first}-{}/{length}", first + count - 1).parse()
    {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}

/// Gives exactly `count` bytes, a part at a time; a log that is pruned meanwhile breaks the
/// answer off.
fn part(log: LogReader, first: u64, count: u64) -> impl Stream<Item = std::io::Result<Bytes>> {
    const PART_BYTES: u64 = 256 << 10;
    stream::try_unfold((log, first, count), |(log, offset, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let part = log.read(offset, left.min(PART_BYTES)).await;
        let part = part.map_err(std::io::Error::other)?;
        if part.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let length = part.len() as u64;
        let rest = (log, offset + length, left - length);
        Ok(Some((Bytes::from(part), rest)))
    })
    .fuse()
}

fn text<'a>(headers: &'a HeaderMap, name: &axum::http::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What a `Range` header asks for (RFC 9110, section 14).
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Everything: there is no range, or none that this server has to understand.
    All,
    /// At least one byte.
    Part { first: u64, count: u64 },
    /// Nothing that there is.
    Beyond,
}

impl Wanted {
    fn parse(header: &str, length: u64) -> Self {
        let Some((first, last)) = header
            .strip_prefix("bytes=")
            .and_then(|range| range.split_once('-'))
        else {
            return Self::All;
        };
        let (first, last) = match (first.trim(), last.trim()) {
            ("", suffix) => match suffix.parse::<u64>() {
                Ok(0) => return Self::Beyond,
                Ok(suffix) => (length.saturating_sub(suffix), length.saturating_sub(1)),
                Err(_) => return Self::All,
            },
            (first, last) => {
                let Ok(first) = first.parse::<u64>() else {
                    return Self::All;
                };
                let last = if last.is_empty() {
                    Ok(u64::MAX)
                } else {
                    last.parse::<u64>()
                };
                let Ok(last) = last else { return Self::All };
                (first, last.min(length.saturating_sub(1)))
            }
        };
        if first >= length {
            return Self::Beyond;
        }
        // `bytes=5-3` asks for nothing; a range that is not valid is ignored.
        match last.checked_sub(first) {
            Some(distance) => Self::Part {
                first,
                count: distance + 1,
            },
            None => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |first, count| Wanted::Part { first, count };
        for (header, length, expected) in [
            ("bytes=0-", 10, part(0, 10)),
            ("bytes=4-", 10, part(4, 6)),
            ("bytes=4-5", 10, part(4, 2)),
            ("bytes=4-99", 10, part(4, 6)),
            ("bytes=-3", 10, part(7, 3)),
            ("bytes=-99", 10, part(0, 10)),
            ("bytes=9-9", 10, part(9, 1)),
            ("bytes=10-", 10, Wanted::Beyond),
            ("bytes=0-", 0, Wanted::Beyond),
            ("bytes=-0", 10, Wanted::Beyond),
            ("bytes=-5", 0, Wanted::Beyond),
            ("bytes=5-3", 10, Wanted::All),
            ("bytes=0-1,3-4", 10, Wanted::All),
            ("bytes=a-b", 10, Wanted::All),
            ("lines=0-1", 10, Wanted::All),
            ("bytes=18446744073709551615-", 10, Wanted::Beyond),
            ("bytes=0-18446744073709551615", 10, part(0, 10)),
        ] {
            assert_eq!(
                Wanted::parse(header, length),
                expected,
                "{header} of {length}"
            );
        }
    }
}
