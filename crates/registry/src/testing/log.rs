//! What has been asked of a registry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use futures::StreamExt;

use super::lock;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, without the question mark.
    pub query: String,
    /// Bytes of its body that the server has read.
    pub body_bytes: u64,
    /// The status of the answer; none while there is none.
    pub status: Option<u16>,
    /// Whether it carried an `Authorization` header.
    pub authorized: bool,
    /// The `Range` that it asked for.
    pub range: Option<String>,
    /// The `Content-Range` of its body.
    pub content_range: Option<String>,
}

#[derive(Default)]
pub(super) struct Log(Mutex<Vec<Entry>>);

struct Entry {
    logged: Logged,
    body_bytes: Arc<AtomicU64>,
    number: u64,
}

impl Log {
    /// Notes a request and counts its body from now on.
    pub(super) fn enter(&self, request: Request) -> (Request, u64) {
        let body_bytes = Arc::new(AtomicU64::new(0));
        let header = |name: &str| {
            let value = request.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let logged = Logged {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            body_bytes: 0,
            status: None,
            authorized: header("authorization").is_some(),
            range: header("range"),
            content_range: header("content-range"),
        };
        let mut entries = lock(&self.0);
        let number = entries.last().map_or(0, |entry| entry.number + 1);
        entries.push(Entry {
            logged,
            body_bytes: Arc::clone(&body_bytes),
            number,
        });
        let request = request.map(|body| {
            Body::from_stream(body.into_data_stream().inspect(move |piece| {
                let bytes = piece.as_ref().map_or(0, |piece| piece.len());
                body_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }))
        });
        (request, number)
    }

    pub(super) fn leave(&self, number: u64, status: StatusCode) {
        let mut entries = lock(&self.0);
        if let Some(entry) = entries.iter_mut().find(|entry| entry.number == number) {
            entry.logged.status = Some(status.as_u16());
        }
    }

    pub(super) fn all(&self) -> Vec<Logged> {
        let snapshot = |entry: &Entry| Logged {
            body_bytes: entry.body_bytes.load(Ordering::Relaxed),
            ..entry.logged.clone()
        };
        lock(&self.0).iter().map(snapshot).collect()
    }

    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}
