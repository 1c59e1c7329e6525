//! Uploading a context: a tar, plain or compressed, that goes to the task table as it comes,
//! so that any replica can build it and no request needs memory for all of it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use futures::StreamExt;
use ocibuild_store::{Context, ContextId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::{ApiError, Detail};
use crate::app::App;
use crate::auth::Principal;

/// How much goes to the table at once.
const PART_BYTES: usize = 1 << 20;

/// A context that was uploaded.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UploadedContext {
    /// What a build names it by.
    #[schema(example = "ctx-0123456789abcdef0123456789abcdef")]
    id: String,
    /// In bytes.
    size: u64,
}

/// Takes a context.
#[utoipa::path(
    post,
    path = "/v1/contexts",
    operation_id = "upload_context",
    tag = "builds",
    request_body(content = Vec<u8>, content_type = "application/x-tar", description = "A tar, plain or compressed with gzip, bzip2, xz or zstd"),
    responses(
        (status = 201, description = "The context is there", body = UploadedContext),
        (status = 400, description = "The body is empty or broke off", body = Detail),
        (status = 413, description = "The context is too large", body = Detail),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn upload(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    request: Request,
) -> Result<(StatusCode, Json<UploadedContext>), ApiError> {
    let context = Context {
        id: ContextId::random(),
        tenant: who.tenant().map(str::to_owned),
        size: 0,
        complete: false,
    };
    app.store.begin_context(&context).await?;
    // What breaks off is never complete, and is deleted when it is old.
    let size = receive(&app, &context.id, request).await?;
    app.store.complete_context(&context.id, size).await?;
    let uploaded = UploadedContext {
        id: context.id.to_string(),
        size,
    };
    Ok((StatusCode::CREATED, Json(uploaded)))
}

async fn receive(app: &App, id: &ContextId, request: Request) -> Result<u64, ApiError> {
    let limit = app.config.limits.context_bytes;
    let mut body = request.into_body().into_data_stream();
    let (mut size, mut part) = (0_u64, Vec::new());
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|_| ApiError::BadBody("The upload broke off"))?;
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
    size = store(app, id, size, &mut part).await?;
    match size {
        0 => Err(ApiError::BadBody("The context is empty")),
        size => Ok(size),
    }
}

async fn store(
    app: &App,
    id: &ContextId,
    offset: u64,
    part: &mut Vec<u8>,
) -> Result<u64, ApiError> {
    if !part.is_empty() {
        app.store.append_context(id, offset, part).await?;
    }
    let size = offset + part.len() as u64;
    part.clear();
    Ok(size)
}
