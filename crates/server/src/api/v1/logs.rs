//! The log of a build, followed: as events (Server-Sent Events, HTML Living Standard §9.2)
//! or as chunked text.
//!
//! The id of an event is the offset in bytes behind its line, so that a client which comes
//! back with `Last-Event-ID`, to any replica, misses nothing and sees nothing twice. Proxies
//! are told not to buffer, and something is said often enough for none to hang up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use futures::stream::{self, StreamExt};
use ocibuild_store::{TaskId, TaskState};
use serde_json::json;
use utoipa::ToSchema;

use super::find;
use crate::api::error::{ApiError, Detail, FieldError, ValidationErrors};
use crate::app::App;
use crate::auth::Principal;
use crate::logs::{Follower, LogError};

/// How many heartbeats pass before a stream of text says that its build waits.
const WAITING_BEATS: u32 = 2;
/// How long a browser waits before it comes back.
const RETRY: Duration = Duration::from_secs(2);
/// How long a log that cannot be read is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// A line longer than this becomes several events.
const LINE_BYTES: usize = 64 << 10;
/// Nginx's header for "do not buffer".
const NO_BUFFERING: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

/// Gives the log of a build as text; with `follow=true` until the build has ended.
#[utoipa::path(
    get,
    path = "/v1/builds/{id}/log",
    operation_id = "read_log",
    tag = "logs",
    params(
        ("id" = String, Path, description = "The build"),
        ("follow" = Option<bool>, Query, description = "Go on until the build has ended"),
        ("offset" = Option<u64>, Query, description = "Begin at this byte"),
    ),
    responses(
        (status = 200, description = "The log", content_type = "text/plain", body = String),
        (status = 404, description = "There is no such build", body = Detail),
        (status = 422, description = "A parameter is wrong", body = ValidationErrors),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn text(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let task = find(&app, &who, &id).await?;
    let Parameters { follow, offset } = Parameters::parse(&query.unwrap_or_default())?;
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        NO_BUFFERING,
    ];
    let body = if follow {
        Body::from_stream(followed_text(app, task.id, offset))
    } else {
        Body::from_stream(text_so_far(app, task.id, offset).await?)
    };
    Ok((headers, body).into_response())
}

struct Parameters {
    follow: bool,
    offset: u64,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parameters = Self {
            follow: false,
            offset: 0,
        };
        let mut errors = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("follow", "true" | "1" | "yes") => parameters.follow = true,
                ("follow", "false" | "0" | "no" | "") => parameters.follow = false,
                ("offset", text) => match text.parse() {
                    Ok(offset) => parameters.offset = offset,
                    Err(_) => errors.push(FieldError::at(
                        "query",
                        "offset",
                        "a number of bytes",
                        Some(text),
                    )),
                },
                ("follow", text) => {
                    errors.push(FieldError::at(
                        "query",
                        "follow",
                        "true or false",
                        Some(text),
                    ));
                }
                _ => {}
            }
        }
        match errors.is_empty() {
            true => Ok(parameters),
            false => Err(ApiError::Invalid(errors)),
        }
    }
}

/// Gives what there is of a log, a part at a time.
async fn text_so_far(
    app: Arc<App>,
    id: TaskId,
    offset: u64,
) -> Result<impl Stream<Item = Result<Bytes, LogError>>, ApiError> {
    const PART_BYTES: u64 = 256 << 10;
    let log = app.logs.open(&id).await?.ok_or(ApiError::NotFound)?;
    Ok(
        stream::try_unfold((log, offset), |(log, offset)| async move {
            let part = log.read(offset, PART_BYTES).await?;
            let next = offset + part.len() as u64;
            Ok((!part.is_empty()).then(|| (Bytes::from(part), (log, next))))
        })
        .fuse(),
    )
}

/// What a follower of text is in.
struct TextState {
    app: Arc<App>,
    id: TaskId,
    follower: Follower,
    waits: bool,
}

/// Gives a log until it ends. While its build waits, notes say so, which are no part of the
/// log; a build that runs writes into its log that it is alive.
fn followed_text(
    app: Arc<App>,
    id: TaskId,
    offset: u64,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let state = TextState {
        follower: app.logs.follow(&id, offset),
        app,
        id,
        waits: true,
    };
    stream::unfold(state, |mut state| async move {
        loop {
            let closing = state.app.closing.clone();
            let waiting = state.app.heartbeat * WAITING_BEATS;
            tokio::select! {
                part = state.follower.next() => match part {
                    Ok(Some(part)) => return Some((Ok(part), state)),
                    Ok(None) => return None,
                    Err(error) => unreadable(&state.id, &error).await,
                },
                () = tokio::time::sleep(waiting), if state.waits => {
                    if let Some(note) = state.note().await {
                        return Some((Ok(note), state));
                    }
                }
                () = closing.cancelled() => return None,
            }
        }
    })
    .fuse()
}

impl TextState {
    async fn note(&mut self) -> Option<Bytes> {
        match self.app.store.ahead(&self.id).await {
            Ok(Some(ahead)) => Some(format!("(waiting, {ahead} ahead)\n").into()),
            Ok(None) => {
                self.waits = false;
                None
            }
            Err(_) => Some("(waiting for the task table)\n".into()),
        }
    }
}

async fn unreadable(id: &TaskId, error: &LogError) {
    tracing::debug!(task = %id, %error, "a followed log cannot be read");
    tokio::time::sleep(PAUSE).await;
}

/// An event of a log that is followed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is written line by line; this describes it")]
pub(crate) struct LogEvent {
    /// `log` for a line, `end` for the end of the build.
    event: String,
    /// The offset in bytes behind the line.
    id: String,
    /// The line; at the end a JSON object with `status`, `digest` and `error`.
    data: String,
}

/// Gives the log of a build as events until the build has ended: `log` for each line,
/// `end` with the state of the build at last.
#[utoipa::path(
    get,
    path = "/v1/builds/{id}/events",
    operation_id = "follow_log",
    tag = "logs",
    params(
        ("id" = String, Path, description = "The build"),
        ("offset" = Option<u64>, Query, description = "Begin at this byte, where no event was seen yet"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen"),
    ),
    responses(
        (status = 200, description = "Events", content_type = "text/event-stream", body = LogEvent),
        (status = 404, description = "There is no such build", body = Detail),
        (status = 422, description = "A parameter is wrong", body = ValidationErrors),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let task = find(&app, &who, &id).await?;
    let Parameters { offset, .. } = Parameters::parse(&query.unwrap_or_default())?;
    let last = headers.get("last-event-id");
    // An id that is not ours begins anew: better twice than never.
    let offset = last
        .and_then(|id| id.to_str().ok()?.parse().ok())
        .unwrap_or(offset);
    let keep_alive = KeepAlive::new().interval(app.heartbeat).text("alive");
    let events = Sse::new(log_events(app, task.id, offset)).keep_alive(keep_alive);
    Ok(([(header::CACHE_CONTROL, "no-cache"), NO_BUFFERING], events).into_response())
}

/// What a follower of events is in.
struct EventState {
    app: Arc<App>,
    id: TaskId,
    follower: Follower,
    lines: Lines,
    done: bool,
}

fn log_events(
    app: Arc<App>,
    id: TaskId,
    offset: u64,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let state = EventState {
        follower: app.logs.follow(&id, offset),
        lines: Lines::at(offset),
        app,
        id,
        done: false,
    };
    let events = stream::unfold(state, |mut state| async move {
        let events = state.next().await;
        (!events.is_empty()).then(|| (stream::iter(events.into_iter().map(Ok)), state))
    });
    // First of all, how soon to come back.
    let begin = Event::default().comment("follow").retry(RETRY);
    stream::once(async { Ok(begin) })
        .chain(events.flatten())
        .fuse()
}

impl EventState {
    /// Waits for events; there are none when nothing more comes.
    async fn next(&mut self) -> Vec<Event> {
        loop {
            if self.done {
                return Vec::new();
            }
            let closing = self.app.closing.clone();
            let part = tokio::select! {
                part = self.follower.next() => part,
                // Without an end the client comes back, to another replica.
                () = closing.cancelled() => return Vec::new(),
            };
            let events = match part {
                Ok(Some(part)) => self.lines.push(&part),
                Ok(None) => {
                    self.done = true;
                    let mut events = self.lines.rest();
                    events.push(self.end().await);
                    events
                }
                Err(error) => {
                    unreadable(&self.id, &error).await;
                    Vec::new()
                }
            };
            if !events.is_empty() {
                return events;
            }
        }
    }

    async fn end(&self) -> Event {
        let task = self.app.store.get(&self.id).await.ok().flatten();
        let state = task
            .as_ref()
            .map_or("", |task| TaskState::as_str(task.state));
        let data = json!({
            "status": state,
            "digest": task.as_ref().and_then(|task| task.digest.as_deref()),
            "error": task.as_ref().and_then(|task| task.error.as_deref()),
        });
        let offset = self.follower.offset().to_string();
        Event::default()
            .event("end")
            .id(offset)
            .data(data.to_string())
    }
}

/// Cuts a log into lines.
struct Lines {
    /// Where what is kept begins.
    offset: u64,
    kept: Vec<u8>,
}

impl Lines {
    fn at(offset: u64) -> Self {
        Self {
            offset,
            kept: Vec::new(),
        }
    }

    /// Takes bytes; gives an event for every line that is whole by now, and for what is too
    /// long to be kept.
    fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.kept.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut begin = 0;
        while let Some(length) = self.kept[begin..].iter().position(|&byte| byte == b'\n') {
            let line = begin..begin + length;
            begin = line.end + 1;
            events.push(event(&self.kept[line], self.offset + begin as u64));
        }
        if self.kept.len() - begin > LINE_BYTES {
            events.push(event(
                &self.kept[begin..],
                self.offset + self.kept.len() as u64,
            ));
            begin = self.kept.len();
        }
        self.kept.drain(..begin);
        self.offset += begin as u64;
        events
    }

    /// Gives what is left when the log has ended.
    fn rest(&mut self) -> Vec<Event> {
        let rest = std::mem::take(&mut self.kept);
        self.offset += rest.len() as u64;
        match rest.is_empty() {
            true => Vec::new(),
            false => vec![event(&rest, self.offset)],
        }
    }
}

/// Makes an event of a line. A carriage return would end the event's own line.
fn event(line: &[u8], end: u64) -> Event {
    let text = String::from_utf8_lossy(line).replace(['\r', '\n'], "␍");
    Event::default().event("log").id(end.to_string()).data(text)
}
