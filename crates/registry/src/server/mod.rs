//! An embeddable registry: the distribution specification 1.1 over a directory.
//!
//! [`Store`] is the directory, [`router`] the protocol over it as an axum router
//! that can be merged into another application, [`serve`] a whole server. Uploads
//! and downloads stream; the server's memory does not grow with a blob's size.
//! Accounts and quotas are [`Settings`]; without them everybody may do everything.

mod access;
mod blobs;
mod failure;
mod garbage;
mod manifests;
mod quota;
mod range;
mod route;
mod store;
mod tags;
mod uploads;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tokio::net::TcpListener;

use failure::Failure;
use route::Route;

pub use access::{Account, Accounts, InvalidAccounts, Right};
pub use garbage::{Collected, GarbagePolicy};
pub use quota::Quota;
pub use store::{Store, StoreError};

/// The parameters of a query.
type Parameters = HashMap<String, String>;

/// How a registry is embedded.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who may do what; without any everybody may do everything.
    pub accounts: Option<Accounts>,
}

/// Makes the routes under `/v2/` of a registry that everybody may use.
pub fn router(store: Store) -> Router {
    router_with(store, Settings::default())
}

/// Makes the routes under `/v2/`.
pub fn router_with(store: Store, settings: Settings) -> Router {
    let routes = routes(store);
    let Some(accounts) = settings.accounts else {
        return routes;
    };
    let check = async move |State(accounts): State<Arc<Accounts>>, request: Request, next: Next| {
        match accounts.check(&request) {
            Ok(()) => next.run(request).await,
            Err(failure) => {
                let has_body = !matches!(*request.method(), Method::GET | Method::HEAD);
                let mut response = add_version(failure.into_response()).await;
                if has_body {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                response
            }
        }
    };
    routes.layer(middleware::from_fn_with_state(Arc::new(accounts), check))
}

fn routes(store: Store) -> Router {
    Router::new()
        .route("/v2", any(version))
        .route("/v2/", any(version))
        .route("/v2/{*path}", any(dispatch))
        // Blobs have no limit; manifests have their own.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::map_response(add_version))
        .with_state(store)
}

/// Serves a store until `shutdown` is ready, then lets open requests end.
pub async fn serve(
    listener: TcpListener,
    store: Store,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_with(listener, store, Settings::default(), shutdown).await
}

/// Serves a store as its settings say.
pub async fn serve_with(
    listener: TcpListener,
    store: Store,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router_with(store, settings))
        .with_graceful_shutdown(shutdown)
        .await
}

/// What clients ask first: is this a registry at all?
async fn version() -> Response {
    ([("content-type", "application/json")], "{}").into_response()
}

async fn add_version(mut response: Response) -> Response {
    response.headers_mut().insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    response
}

/// A request whose path has been understood.
struct Call {
    store: Store,
    method: Method,
    headers: HeaderMap,
    query: Parameters,
}

impl Call {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

async fn dispatch(
    State(store): State<Store>,
    Path(path): Path<String>,
    Query(query): Query<Parameters>,
    request: Request,
) -> Result<Response, Failure> {
    let route = Route::parse(&path)?;
    let (parts, body) = request.into_parts();
    let call = Call {
        store,
        method: parts.method,
        headers: parts.headers,
        query,
    };
    let has_body = matches!(call.method.as_str(), "POST" | "PUT" | "PATCH");
    let answer = match (call.method.as_str(), route) {
        ("GET" | "HEAD", Route::Blob(name, digest)) => blobs::get(call, name, digest).await,
        ("DELETE", Route::Blob(name, digest)) => blobs::delete(call, name, digest).await,
        ("POST", Route::Uploads(name)) => uploads::start(call, body, name).await,
        ("GET", Route::Upload(name, id)) => uploads::status(call, name, id).await,
        ("PATCH", Route::Upload(name, id)) => uploads::append(call, body, name, id).await,
        ("PUT", Route::Upload(name, id)) => uploads::finish(call, body, name, id).await,
        ("DELETE", Route::Upload(name, id)) => uploads::cancel(call, name, id),
        ("GET" | "HEAD", Route::Manifest(name, key)) => manifests::get(call, name, key).await,
        ("PUT", Route::Manifest(name, key)) => manifests::put(call, body, name, key).await,
        ("DELETE", Route::Manifest(name, key)) => manifests::delete(call, name, key).await,
        ("GET", Route::Referrers(name, digest)) => manifests::referrers(call, name, digest).await,
        ("GET", Route::Tags(name)) => tags::list(call, name).await,
        ("GET", Route::Catalog) => tags::catalog(call).await,
        _ => Err(Failure::unsupported()),
    };
    answer.map_err(|failure| match has_body {
        // What of the body has not been read makes the connection useless.
        true => failure.with_header(CONNECTION, HeaderValue::from_static("close")),
        false => failure,
    })
}

/// Runs work on files beside the threads that serve the network.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(panicked) => {
            tracing::error!(%panicked, "work on the store ended badly");
            Err(Failure::internal())
        }
    }
}

/// Makes a header value of a text that has been checked to be plain ASCII.
fn header(text: impl Into<String>) -> HeaderValue {
    HeaderValue::try_from(text.into()).unwrap_or(HeaderValue::from_static(""))
}
