//! Uploading a context: a tar, plain or compressed, that goes to the task table as it comes,
//! so that any replica can build it and no request needs memory for all of it. One that
//! breaks off can be gone on with: the headers are those of "Resumable Uploads for HTTP".

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::StreamExt;
use ocibuild_store::{Context, ContextId, StoreError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::{ApiError, Detail};
use crate::app::App;
use crate::auth::Principal;

/// How much goes to the table at once.
const PART_BYTES: usize = 1 << 20;

/// Whether a request brings the end of a context: `?1`, the default, or `?0`.
const COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
/// Where in a context a request begins, and how much of it there is.
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");

/// A context, or as much of it as there is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UploadedContext {
    /// What a build names it by.
    #[schema(example = "ctx-0123456789abcdef0123456789abcdef")]
    id: String,
    /// In bytes.
    size: u64,
    /// It is whole, and builds can use it.
    complete: bool,
}

impl IntoResponse for UploadedContext {
    fn into_response(self) -> Response {
        let complete = match self.complete {
            true => "?1",
            false => "?0",
        };
        let headers = [
            (OFFSET, self.size.to_string()),
            (COMPLETE, complete.to_owned()),
            (header::LOCATION, format!("/v1/contexts/{}", self.id)),
        ];
        (headers, Json(self)).into_response()
    }
}

/// Takes a context, or its begin.
#[utoipa::path(
    post,
    path = "/v1/contexts",
    operation_id = "upload_context",
    tag = "builds",
    params(("Upload-Complete" = Option<String>, Header, description = "`?0`: more comes with PATCH")),
    request_body(content = Vec<u8>, content_type = "application/x-tar", description = "A tar, plain or compressed with gzip, bzip2, xz or zstd"),
    responses(
        (status = 201, description = "The context, or its begin, is there", body = UploadedContext),
        (status = 400, description = "The body is empty or broke off", body = Detail),
        (status = 413, description = "The context is too large", body = Detail),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn upload(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    request: Request,
) -> Result<(StatusCode, UploadedContext), ApiError> {
    let is_last = is_last(request.headers())?;
    let context = Context {
        id: ContextId::random(),
        tenant: who.tenant().map(str::to_owned),
        size: 0,
        complete: false,
    };
    app.store.begin_context(&context).await?;
    // What breaks off is never complete, and is deleted when it is old.
    let size = receive(&app, &context.id, 0, request).await?;
    let uploaded = end(&app, context.id, size, is_last).await?;
    Ok((StatusCode::CREATED, uploaded))
}

/// Tells how much of a context there is.
#[utoipa::path(
    get,
    path = "/v1/contexts/{id}",
    operation_id = "read_context",
    tag = "builds",
    params(("id" = String, Path, description = "What the upload gave")),
    responses(
        (status = 200, description = "What there is; also in the headers `Upload-Offset` and `Upload-Complete`", body = UploadedContext),
        (status = 404, description = "There is no such context", body = Detail),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<UploadedContext, ApiError> {
    let context = find(&app, &who, &id).await?;
    Ok(UploadedContext {
        id: context.id.to_string(),
        size: context.size,
        complete: context.complete,
    })
}

/// Goes on with a context that was begun, where it ends so far.
#[utoipa::path(
    patch,
    path = "/v1/contexts/{id}",
    operation_id = "append_context",
    tag = "builds",
    params(
        ("id" = String, Path, description = "What the upload gave"),
        ("Upload-Offset" = String, Header, description = "How much is there already, in bytes"),
        ("Upload-Complete" = Option<String>, Header, description = "`?0`: more comes"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "What follows"),
    responses(
        (status = 200, description = "What there is now", body = UploadedContext),
        (status = 400, description = "The offset is missing, the body broke off, or the context is empty", body = Detail),
        (status = 404, description = "There is no such context", body = Detail),
        (status = 409, description = "The context is complete, or ends elsewhere", body = Detail),
        (status = 413, description = "The context is too large", body = Detail),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn append(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
    request: Request,
) -> Result<UploadedContext, ApiError> {
    let is_last = is_last(request.headers())?;
    let offset = request.headers().get(OFFSET);
    let offset = offset.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let offset = offset.ok_or(ApiError::BadBody("Upload-Offset is not a number of bytes"))?;
    let context = find(&app, &who, &id).await?;
    if context.complete {
        return Err(ApiError::Conflict("The context is complete"));
    }
    if context.size != offset {
        return Err(ELSEWHERE);
    }
    let size = receive(&app, &context.id, offset, request).await?;
    end(&app, context.id, size, is_last).await
}

const ELSEWHERE: ApiError = ApiError::Conflict("The context does not end at Upload-Offset");

/// Finds a context of a tenant; those of others do not exist for it.
async fn find(app: &App, who: &Principal, id: &str) -> Result<Context, ApiError> {
    let id = id.parse().map_err(|_| ApiError::NotFound)?;
    let found = app.store.context(&id).await?;
    let is_own = |context: &Context| {
        let tenant = who.tenant();
        tenant.is_none_or(|name| context.tenant.as_deref() == Some(name))
    };
    found.filter(is_own).ok_or(ApiError::NotFound)
}

fn is_last(headers: &HeaderMap) -> Result<bool, ApiError> {
    match headers.get(COMPLETE).map(HeaderValue::as_bytes) {
        None | Some(b"?1") => Ok(true),
        Some(b"?0") => Ok(false),
        Some(_) => Err(ApiError::BadBody("Upload-Complete is neither ?0 nor ?1")),
    }
}

async fn end(
    app: &App,
    id: ContextId,
    size: u64,
    is_last: bool,
) -> Result<UploadedContext, ApiError> {
    if is_last && size == 0 {
        return Err(ApiError::BadBody("The context is empty"));
    }
    if is_last {
        app.store.complete_context(&id, size).await?;
    }
    Ok(UploadedContext {
        id: id.to_string(),
        size,
        complete: is_last,
    })
}

/// Adds what a request brings, and gives how much there is then. What came before a request
/// broke off stays.
async fn receive(
    app: &App,
    id: &ContextId,
    offset: u64,
    request: Request,
) -> Result<u64, ApiError> {
    let limit = app.config.limits.context_bytes;
    let mut body = request.into_body().into_data_stream();
    let (mut size, mut part) = (offset, Vec::new());
    while let Some(bytes) = body.next().await {
        let Ok(bytes) = bytes else {
            store(app, id, size, &mut part).await?;
            return Err(ApiError::BadBody("The upload broke off"));
        };
        part.extend_from_slice(&bytes);
        if size + part.len() as u64 > limit {
            return Err(ApiError::TooLarge {
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            });
        }
        if part.len() >= PART_BYTES {
            size = store(app, id, size, &mut part).await?;
        }
    }
    store(app, id, size, &mut part).await
}

async fn store(
    app: &App,
    id: &ContextId,
    offset: u64,
    part: &mut Vec<u8>,
) -> Result<u64, ApiError> {
    if !part.is_empty() {
        let added = app.store.append_context(id, offset, part).await;
        added.map_err(|error| match error {
            // Somebody else goes on with it too.
            StoreError::ContextOffset { .. } => ELSEWHERE,
            error => error.into(),
        })?;
    }
    let size = offset + part.len() as u64;
    part.clear();
    Ok(size)
}
