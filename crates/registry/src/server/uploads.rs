//! Upload sessions (distribution-spec, "Pushing blobs"): one POST, a POST and a PUT,
//! or chunks in order. A session is a file and a running hash; sessions live as long
//! as the process, and a client whose session is unknown starts another.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tempfile::TempPath;

use super::blobs::created;
use super::failure::Failure;
use super::quota::Allowance;
use super::route::{Name, digest};
use super::{Call, StoreError, blocking, header, range};
use crate::digest::Algorithm;
use crate::stream::{Sink, Written};
use crate::{Digest, Hasher};

/// A session that nobody has touched for this long is dropped.
const IDLE: Duration = Duration::from_secs(6 * 3600);
const UPLOAD_UUID: &str = "docker-upload-uuid";

/// The open sessions of a store.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

struct Session {
    repository: Name,
    used: Mutex<Instant>,
    /// Taken by the request that ends the session.
    progress: tokio::sync::Mutex<Option<Progress>>,
}

struct Progress {
    path: TempPath,
    hasher: Hasher,
    length: u64,
}

impl Sessions {
    fn open(&self, repository: Name, path: TempPath) -> (String, Arc<Session>) {
        let id = uuid::Uuid::new_v4().to_string();
        let session = Arc::new(Session {
            repository,
            used: Mutex::new(Instant::now()),
            progress: tokio::sync::Mutex::new(Some(Progress {
                path,
                hasher: Hasher::sha256(),
                length: 0,
            })),
        });
        let mut sessions = lock(&self.0);
        sessions.retain(|_, session| lock(&session.used).elapsed() < IDLE);
        sessions.insert(id.clone(), Arc::clone(&session));
        (id, session)
    }

    fn find(&self, repository: &Name, id: &str) -> Result<Arc<Session>, Failure> {
        let session = lock(&self.0).get(id).cloned();
        let session = session.filter(|session| session.repository == *repository);
        let session = session.ok_or_else(Failure::upload_unknown)?;
        *lock(&session.used) = Instant::now();
        Ok(session)
    }

    fn close(&self, id: &str) {
        lock(&self.0).remove(id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `POST /v2/<name>/blobs/uploads/`: a mount, a whole blob, or a new session.
pub(super) async fn start(call: Call, body: Body, name: Name) -> Result<Response, Failure> {
    if let Some(mounted) = mount(&call, &name).await? {
        return Ok(mounted);
    }
    let expected = call.parameter("digest").map(digest).transpose()?;
    let store = call.store.clone();
    let temporary = blocking(move || store.temporary()).await?;
    let (id, session) = call
        .store
        .sessions()
        .open(name.clone(), temporary.into_temp_path());
    match expected {
        Some(expected) => complete(call, body, id, session, expected).await,
        None => Ok(accepted(StatusCode::ACCEPTED, &name, &id, 0)),
    }
}

async fn mount(call: &Call, name: &Name) -> Result<Option<Response>, Failure> {
    let (Some(wanted), Some(from)) = (call.parameter("mount"), call.parameter("from")) else {
        return Ok(None);
    };
    // What cannot be mounted is uploaded instead, so a bad source is no failure.
    let (Ok(wanted), Ok(from)) = (digest(wanted), Name::parse(from)) else {
        return Ok(None);
    };
    let (store, to, source) = (call.store.clone(), name.clone(), from.clone());
    let left = blocking(move || {
        let size = store.open_blob(&source, &wanted)?.map(|(_, size)| size);
        Ok((store.allowance(&to)?, size))
    });
    let (allowance, size) = left.await?;
    Allowance::check(allowance, size.unwrap_or(0))?;
    let (store, to) = (call.store.clone(), name.clone());
    let mounted = blocking(move || store.mount(&from, &to, &wanted)).await?;
    Ok(mounted.then(|| created(name, &wanted)))
}

/// `GET`: how much of the blob is there.
pub(super) async fn status(call: Call, name: Name, id: String) -> Result<Response, Failure> {
    let session = call.store.sessions().find(&name, &id)?;
    let progress = session.progress.lock().await;
    let progress = progress.as_ref().ok_or_else(Failure::upload_unknown)?;
    let status = StatusCode::NO_CONTENT;
    Ok(accepted(status, &name, &id, progress.length))
}

/// `PATCH`: one chunk, which has to begin where the upload ends.
pub(super) async fn append(
    call: Call,
    body: Body,
    name: Name,
    id: String,
) -> Result<Response, Failure> {
    let session = call.store.sessions().find(&name, &id)?;
    detached(async move {
        let mut slot = session.progress.lock().await;
        check_chunk(&call.headers, &slot, &name, &id)?;
        let length = receive(&call, &name, body, &mut slot).await?;
        Ok(accepted(StatusCode::ACCEPTED, &name, &id, length))
    })
    .await
}

/// `PUT ?digest=`: the rest of the blob, or all of it.
pub(super) async fn finish(
    call: Call,
    body: Body,
    name: Name,
    id: String,
) -> Result<Response, Failure> {
    let session = call.store.sessions().find(&name, &id)?;
    let expected = call.parameter("digest").unwrap_or_default();
    let expected = digest(expected)?;
    complete(call, body, id, session, expected).await
}

/// `DELETE`: the client does not want to go on.
pub(super) fn cancel(call: Call, name: Name, id: String) -> Result<Response, Failure> {
    call.store.sessions().find(&name, &id)?;
    call.store.sessions().close(&id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn complete(
    call: Call,
    body: Body,
    id: String,
    session: Arc<Session>,
    expected: Digest,
) -> Result<Response, Failure> {
    let name = session.repository.clone();
    detached(async move {
        let mut slot = session.progress.lock().await;
        check_chunk(&call.headers, &slot, &name, &id)?;
        if let Some(progress) = slot.as_mut().filter(|progress| progress.length == 0) {
            progress.hasher = Hasher::new(expected.algorithm());
        }
        receive(&call, &name, body, &mut slot).await?;
        let progress = slot.take().ok_or_else(Failure::upload_unknown)?;
        call.store.sessions().close(&id);
        let (store, to) = (call.store, name.clone());
        let actual = blocking(move || {
            let actual = progress.digest(expected.algorithm())?;
            if actual == expected {
                store.commit_blob(&to, &expected, progress.path)?;
            }
            Ok(actual)
        })
        .await?;
        match actual == expected {
            true => Ok(created(&name, &expected)),
            false => Err(Failure::digest_invalid(format!(
                "the content has the digest {actual}"
            ))),
        }
    })
    .await
}

impl Progress {
    /// Gives the digest of what was received. Chunks are hashed with SHA-256 as they
    /// come; whoever names another algorithm at the end makes us read them again.
    fn digest(&self, algorithm: Algorithm) -> Result<Digest, StoreError> {
        let digest = self.hasher.clone().finish();
        if digest.algorithm() == algorithm {
            return Ok(digest);
        }
        let at_path = |source| StoreError::new("read", &self.path, source);
        let mut hasher = Hasher::new(algorithm);
        let mut file = File::open(&self.path).map_err(at_path)?;
        io::copy(&mut file, &mut hasher).map_err(at_path)?;
        Ok(hasher.finish())
    }
}

/// Checks `Content-Range` against where the upload stands and the size of the body.
fn check_chunk(
    headers: &HeaderMap,
    slot: &Option<Progress>,
    name: &Name,
    id: &str,
) -> Result<(), Failure> {
    let length = slot
        .as_ref()
        .map(|progress| progress.length)
        .ok_or_else(Failure::upload_unknown)?;
    let Some(text) = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()) else {
        return Ok(());
    };
    let out_of_order = || {
        Failure::out_of_order()
            .with_header(RANGE, header(received(length)))
            .with_header(LOCATION, header(location(name, id)))
    };
    let (first, count) = range::chunk(text).ok_or_else(out_of_order)?;
    if first != length {
        return Err(out_of_order());
    }
    let body = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let body = body.and_then(|text| text.parse::<u64>().ok());
    match body.is_none_or(|body| body == count) {
        true => Ok(()),
        false => Err(Failure::size_invalid()),
    }
}

/// Appends a body to a session; gives the new length. What came before a body broke
/// off is kept, so that the client can ask where to go on.
async fn receive(
    call: &Call,
    name: &Name,
    body: Body,
    slot: &mut Option<Progress>,
) -> Result<u64, Failure> {
    let (store, of) = (call.store.clone(), name.clone());
    let allowance = blocking(move || store.allowance(&of)).await?;
    let announced = call
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok());
    let announced = announced.and_then(|text| text.parse::<u64>().ok());
    let before = slot.as_ref().map_or(0, |progress| progress.length);
    let wanted = before.saturating_add(announced.unwrap_or(0));
    Allowance::check(allowance, wanted).inspect_err(|_| *slot = None)?;
    let progress = slot.take().ok_or_else(Failure::upload_unknown)?;
    let path = progress.path;
    let opened = OpenOptions::new().append(true).open(&path);
    let file = opened.map_err(|source| StoreError::new("open", &path, source))?;
    let sink = Sink::start(Written {
        file,
        hasher: progress.hasher,
        length: progress.length,
        arriving: None,
    });
    let mut pieces = body.into_data_stream();
    let mut whole = true;
    let mut length = before;
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else {
            whole = false;
            break;
        };
        length += piece.len() as u64;
        // What is too much ends the upload with its file.
        Allowance::check(allowance, length)?;
        if !sink.write(piece).await {
            break;
        }
    }
    let written = sink.finish().await;
    let written = written.map_err(|source| StoreError::new("write", &path, source))?;
    *slot = Some(Progress {
        path,
        hasher: written.hasher,
        length: written.length,
    });
    match whole {
        true => Ok(written.length),
        false => Err(Failure::upload_broken()),
    }
}

/// Lets work end even when its connection does: the request's own future is dropped
/// then, and with it would go the hash of what has arrived.
async fn detached(
    work: impl Future<Output = Result<Response, Failure>> + Send + 'static,
) -> Result<Response, Failure> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(panicked) => {
            tracing::error!(%panicked, "an upload ended badly");
            Err(Failure::internal())
        }
    }
}

fn accepted(status: StatusCode, name: &Name, id: &str, length: u64) -> Response {
    let headers = [
        ("location", header(location(name, id))),
        ("range", header(received(length))),
        (UPLOAD_UUID, header(id)),
    ];
    (status, headers).into_response()
}

fn location(name: &Name, id: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// Writes what has arrived as the specification does, which has no form for nothing.
fn received(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}
