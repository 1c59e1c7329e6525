//! A server that takes any blob and keeps nothing, and gives zeros: for layers that are larger
//! than the disk. It counts; it does not check.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use tokio::net::TcpListener;

/// How much is given at once.
const PIECE: usize = 64 << 10;

/// Serves until `shutdown` is ready.
pub(super) async fn serve(
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let taken = Arc::<AtomicU64>::default();
    let app = Router::new().fallback(answer).with_state(taken);
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown)
        .await?;
    Ok(())
}

async fn answer(State(taken): State<Arc<AtomicU64>>, request: Request) -> Response {
    match *request.method() {
        Method::HEAD => StatusCode::NOT_FOUND.into_response(),
        Method::POST => (
            StatusCode::ACCEPTED,
            [("location", "/v2/app/blobs/uploads/1")],
        )
            .into_response(),
        Method::PUT => {
            let mut body = request.into_body().into_data_stream();
            while let Some(piece) = body.next().await {
                match piece {
                    Ok(piece) => taken.fetch_add(piece.len() as u64, Ordering::Relaxed),
                    Err(_) => return StatusCode::BAD_REQUEST.into_response(),
                };
            }
            StatusCode::CREATED.into_response()
        }
        Method::GET => zeros(request.headers(), taken.load(Ordering::Relaxed)),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// Gives as many zeros as were taken, or the range of them that is asked for.
fn zeros(headers: &HeaderMap, size: u64) -> Response {
    let range = headers.get("range").and_then(|text| text.to_str().ok());
    let range = range.and_then(|text| {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let last = last.parse().unwrap_or(size - 1).min(size - 1);
        Some((first.parse::<u64>().ok()?, last))
    });
    let (status, first, last) = match range {
        Some((first, last)) => (StatusCode::PARTIAL_CONTENT, first, last),
        None => (StatusCode::OK, 0, size.saturating_sub(1)),
    };
    let piece = Bytes::from(vec![0; PIECE]);
    let pieces = stream::unfold(last + 1 - first, move |left| {
        let piece = piece.clone();
        async move {
            let count = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let next = (
                Ok::<_, std::io::Error>(piece.slice(..count)),
                left - count as u64,
            );
            (left > 0).then_some(next)
        }
    });
    let headers = [
        ("content-length", (last + 1 - first).to_string()),
        ("content-range", format!("bytes {first}-{last}/{size}")),
        ("accept-ranges", "bytes".to_owned()),
    ];
    (status, headers, Body::from_stream(pieces)).into_response()
}
