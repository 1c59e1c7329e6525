//! Every route of the service on one page.

use std::sync::Arc;

use axum::Router;
use axum::ServiceExt;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::Uri;
use axum::routing::{IntoMakeService, get, post};
use tower::util::MapRequest;

use crate::api::{docs, error, health, logs, page, tasks};
use crate::app::App;

/// What a form may hold beside its Dockerfile.
const FORM_FIELDS_BYTES: usize = 64 << 10;

/// The routes. Darwin's clients know those up to the health checks.
fn router(app: Arc<App>) -> Router {
    let body_limit = app
        .config
        .limits
        .dockerfile_bytes
        .saturating_add(FORM_FIELDS_BYTES);
    let build = post(tasks::build_with_dockerfile).layer(DefaultBodyLimit::max(body_limit));
    Router::new()
        .route("/build_with_dockerfile", build)
        .route("/task", get(tasks::list))
        .route("/task/status", get(tasks::status))
        .route("/task/logs", get(tasks::logs))
        .route("/static/{file}", get(logs::file))
        .route("/health", get(health::check))
        .route("/healthcheck", get(health::check))
        .route("/", get(page::index))
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::redirect))
        .route("/docs/", get(docs::index))
        .route("/docs/{*file}", get(docs::file))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::wrong_method)
        .with_state(app)
}

/// The routes as a service, which answers with and without the prefix `ROOT_PATH`: some
/// proxies strip it and some do not.
pub(crate) fn service(
    app: Arc<App>,
) -> IntoMakeService<MapRequest<Router, impl Fn(Request) -> Request + Clone>> {
    let prefix = app.config.root_path.clone();
    let strip = move |mut request: Request| {
        if let Some(uri) = without_prefix(request.uri(), &prefix) {
            *request.uri_mut() = uri;
        }
        request
    };
    let service = MapRequest::new(router(app), strip);
    ServiceExt::<Request>::into_make_service(service)
}

/// Gives `uri` without the prefix, if it has it.
fn without_prefix(uri: &Uri, prefix: &str) -> Option<Uri> {
    if prefix.is_empty() {
        return None;
    }
    let rest = uri.path().strip_prefix(prefix)?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let path = if rest.is_empty() { "/" } else { rest };
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_taken_off_once_and_whole() {
        for (uri, expected) in [
            ("/builder/task", Some("/task")),
            ("/builder/task?a=1", Some("/task?a=1")),
            ("/builder", Some("/")),
            ("/builder/", Some("/")),
            ("/builders/task", None),
            ("/task", None),
            ("/builder/builder/task", Some("/builder/task")),
        ] {
            let stripped = without_prefix(&uri.parse().unwrap(), "/builder");
            assert_eq!(
                stripped.map(|uri| uri.to_string()).as_deref(),
                expected,
                "{uri}"
            );
        }
        assert_eq!(without_prefix(&"/task".parse().unwrap(), ""), None);
    }
}
