//! Failures on purpose: which request fails, and how.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;
use futures::{Stream, StreamExt};

use super::connection::Connection;
use super::lock;

/// How a request fails.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// It is answered with this status and does nothing.
    Status(u16),
    /// It is answered with this status and `Retry-After`, and does nothing.
    RetryAfter {
        /// The status.
        status: u16,
        /// The seconds to wait.
        seconds: u64,
    },
    /// It is answered with this and does nothing.
    Answer(Answer),
    /// It is carried out after this time.
    Delay(Duration),
    /// It is never answered.
    Stall,
    /// The connection is reset before it does anything.
    Reset,
    /// The connection is reset after so many bytes of the request's body.
    ResetAfter(u64),
    /// It is carried out, and the connection is reset in place of the answer.
    LoseAnswer,
    /// The connection ends after so many bytes of the answer's body.
    TruncateAfter(u64),
    /// The answer's body stands still after so many bytes.
    StallAfter(u64),
}

/// An answer that the real server would not give.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, by name and value.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Faults {
    rules: Mutex<Vec<Rule>>,
    line: Mutex<Line>,
}

/// What lies between the clients and the registry.
#[derive(Default)]
struct Line {
    break_every: Option<u64>,
    /// Bytes of bodies that have passed since the last break.
    passed: Arc<AtomicU64>,
    largest: Option<u64>,
    buffering: bool,
}

struct Rule {
    method: String,
    path_prefix: String,
    /// Requests that match, up to and with the one that fails.
    left: usize,
    fault: Fault,
}

impl Faults {
    pub(super) fn add(&self, method: &str, path_prefix: &str, nth: usize, fault: Fault) {
        lock(&self.rules).push(Rule {
            method: method.to_owned(),
            path_prefix: path_prefix.to_owned(),
            left: nth.max(1),
            fault,
        });
    }

    pub(super) fn break_every(&self, bytes: u64) {
        lock(&self.line).break_every = Some(bytes);
    }

    pub(super) fn limit_bodies(&self, bytes: u64) {
        lock(&self.line).largest = Some(bytes);
    }

    pub(super) fn buffer_bodies(&self) {
        lock(&self.line).buffering = true;
    }

    /// Sends a request over the line: what comes out at its other end, or the answer
    /// where it does not get through.
    pub(super) async fn carry(
        &self,
        request: Request,
        connection: &Connection,
    ) -> Result<Request, Box<Response>> {
        let (largest, buffering) = {
            let line = lock(&self.line);
            (line.largest, line.buffering)
        };
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if largest.is_some_and(|largest| length.is_some_and(|length| length > largest)) {
            linger(request);
            let server = [("server", "test-proxy")];
            return Err(Box::new((status(413), server, "too large").into_response()));
        }
        let request = self.wear(request, connection.clone());
        if !buffering {
            return Ok(request);
        }
        let (parts, body) = request.into_parts();
        match axum::body::to_bytes(body, usize::MAX).await {
            Ok(bytes) => Ok(Request::from_parts(parts, bytes.into())),
            // The connection is broken already.
            Err(_) => Err(Box::default()),
        }
    }

    fn wear(&self, request: Request, connection: Connection) -> Request {
        let line = lock(&self.line);
        let Some(every) = line.break_every else {
            return request;
        };
        let passed = Arc::clone(&line.passed);
        request.map(|body| Body::from_stream(worn(body, every, passed, connection)))
    }

    /// Counts a request; gives the fault that hits it.
    pub(super) fn take(&self, request: &Request) -> Option<Fault> {
        let mut rules = lock(&self.rules);
        for rule in rules.iter_mut() {
            let method = rule.method.is_empty() || rule.method == request.method().as_str();
            if method && request.uri().path().starts_with(&rule.path_prefix) {
                rule.left -= 1;
            }
        }
        let due = rules.iter().position(|rule| rule.left == 0)?;
        let fault = rules.remove(due).fault;
        // Two faults that are due at once hit one request after the other.
        rules
            .iter_mut()
            .for_each(|rule| rule.left = rule.left.max(1));
        Some(fault)
    }
}

pub(super) async fn apply(
    fault: Option<Fault>,
    connection: Connection,
    request: Request,
    pass: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    match fault {
        None => pass(request).await,
        Some(Fault::Status(code)) => {
            linger(request);
            status(code).into_response()
        }
        Some(Fault::RetryAfter {
            status: code,
            seconds,
        }) => {
            linger(request);
            (status(code), [("retry-after", seconds.to_string())]).into_response()
        }
        Some(Fault::Answer(answer)) => {
            linger(request);
            answer.into_response()
        }
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            pass(request).await
        }
        Some(Fault::Stall) => std::future::pending().await,
        Some(Fault::Reset) => {
            connection.reset();
            Response::default()
        }
        Some(Fault::ResetAfter(limit)) => {
            let request = request.map(|body| {
                let break_it = move || connection.reset();
                Body::from_stream(cut(body, limit, break_it))
            });
            pass(request).await
        }
        Some(Fault::LoseAnswer) => {
            let response = pass(request).await;
            connection.reset();
            response
        }
        Some(Fault::TruncateAfter(limit)) => {
            let response = pass(request).await;
            response.map(|body| Body::from_stream(cut(body, limit, || {})))
        }
        Some(Fault::StallAfter(limit)) => {
            let response = pass(request).await;
            response.map(|body| {
                let first = cut(body, limit, || {}).take_while(|item| {
                    let goes_on = item.is_ok();
                    async move { goes_on }
                });
                Body::from_stream(first.chain(stream::pending()))
            })
        }
    }
}

/// Reads the rest of a body while the answer is already on its way, as proxies do:
/// a close with unread bytes is a reset, which takes the answer with it.
fn linger(request: Request) {
    tokio::spawn(async move {
        let mut pieces = request.into_body().into_data_stream();
        while let Some(Ok(_)) = pieces.next().await {}
    });
}

/// Lets `limit` bytes of a body through, then calls `end` and fails.
fn cut(
    body: Body,
    limit: u64,
    end: impl Fn() + Send + 'static,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let state = (body.into_data_stream(), limit, end);
    stream::try_unfold(state, async |(mut pieces, left, end)| {
        if left == 0 {
            // A server flushes what it has when the body pauses, and not when it fails.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            end();
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        let Some(piece) = pieces.next().await else {
            return Ok(None);
        };
        let mut piece = piece.map_err(std::io::Error::other)?;
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - piece.len() as u64;
        Ok(Some((piece, (pieces, left, end))))
    })
}

/// Lets a body through until `every` bytes of any bodies have passed; then the
/// connection breaks, and counting starts anew.
fn worn(
    body: Body,
    every: u64,
    passed: Arc<AtomicU64>,
    connection: Connection,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let state = (body.into_data_stream(), passed, connection);
    stream::try_unfold(state, move |(mut pieces, passed, connection)| async move {
        if connection.is_broken() {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        let Some(piece) = pieces.next().await else {
            return Ok(None);
        };
        let mut piece = piece.map_err(std::io::Error::other)?;
        let length = piece.len() as u64;
        let before = passed.fetch_add(length, Ordering::Relaxed);
        if before + length >= every {
            let through = every.saturating_sub(before);
            piece.truncate(usize::try_from(through).unwrap_or(usize::MAX));
            passed.store(0, Ordering::Relaxed);
            connection.reset();
        }
        Ok(Some((piece, (pieces, passed, connection))))
    })
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                headers.append(name, value);
            }
        }
        (status(self.status), headers, self.body).into_response()
    }
}
