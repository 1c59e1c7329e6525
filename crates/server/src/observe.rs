//! What is counted and traced of every request. Its path is known by the template of its
//! route only: paths hold ids, and what somebody typed.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::context::FutureExt as _;

use crate::app::App;
use crate::traces::Traces;

/// Stands for the route of a path that has none.
const NO_ROUTE: &str = "none";
/// What machines ask every few seconds; nobody wants a trace of it.
const PROBES: [&str; 5] = ["/health", "/healthcheck", "/livez", "/readyz", "/metrics"];

/// Watches a request until the head of its answer is there.
pub(crate) async fn request(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = name(request.method());
    let route = match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_owned(),
        None => NO_ROUTE.to_owned(),
    };
    let response = if PROBES.contains(&route.as_str()) {
        next.run(request).await
    } else {
        let span = app.traces.request(request.headers(), method, &route);
        let response = next.run(request).with_context(span.clone()).await;
        let status = response.status();
        if status.is_server_error() {
            tracing::warn!(method, route, status = status.as_u16(), "a request failed");
        }
        Traces::answered(&span, status);
        response
    };
    app.metrics
        .answered(&route, method, response.status(), began.elapsed());
    response
}

/// Gives the name of a usual method; clients may invent others.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}
