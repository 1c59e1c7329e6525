//! Every route of the service on one page.

use std::sync::Arc;

use axum::Router;
use axum::ServiceExt;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::Uri;
use axum::middleware;
use axum::routing::{IntoMakeService, get, post};
use tower::util::MapRequest;

use crate::api::v1::{builds, contexts, list, logs as v1_logs};
use crate::api::{docs, error, health, logs, metrics, tasks};
use crate::app::App;
use crate::auth;
use crate::observe;
use crate::page::{self, NoSlash};

/// What a form may hold beside its Dockerfile.
const FORM_FIELDS_BYTES: usize = 64 << 10;

/// The routes. Darwin's clients know those of `darwin`.
fn router(app: Arc<App>) -> Router {
    let checked = darwin(&app)
        .merge(v1(&app))
        .merge(pages())
        .route("/metrics", get(metrics::read))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            auth::check,
        ));
    open()
        .merge(checked)
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            observe::request,
        ))
        .with_state(app)
}

/// What everybody may ask: probes and the description of the API.
fn open() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(health::check))
        .route("/healthcheck", get(health::check))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::redirect))
        .route("/docs/", get(docs::index))
        .route("/docs/{*file}", get(docs::file))
}

fn darwin(app: &App) -> Router<Arc<App>> {
    let build = post(tasks::build_with_dockerfile).layer(text_limit(app));
    Router::new()
        .route("/build_with_dockerfile", build)
        .route("/task", get(tasks::list))
        .route("/task/status", get(tasks::status))
        .route("/task/logs", get(tasks::logs))
        .route("/static/{file}", get(logs::file))
}

fn v1(app: &App) -> Router<Arc<App>> {
    let upload = post(contexts::upload).layer(DefaultBodyLimit::disable());
    let resume = get(contexts::read).patch(contexts::append);
    let resume = resume.layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/v1/builds", post(builds::submit).get(list::list))
        .route("/v1/builds/{id}", get(builds::read))
        .route("/v1/builds/{id}/cancel", post(builds::cancel))
        .route("/v1/builds/{id}/retry", post(builds::retry))
        .route("/v1/builds/{id}/push", post(builds::push))
        .route("/v1/builds/{id}/log", get(v1_logs::text))
        .route("/v1/builds/{id}/events", get(v1_logs::events))
        .layer(text_limit(app))
        .route("/v1/contexts", upload)
        .route("/v1/contexts/{id}", resume)
}

fn pages() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(page::list))
        .route("/builds/{id}", get(page::build))
        .route("/builds/{id}/cancel", post(page::cancel))
        .route("/builds/{id}/retry", post(page::retry))
        .route("/assets/{file}", get(page::asset))
}

/// How long a body may be that holds a Dockerfile and little else.
fn text_limit(app: &App) -> DefaultBodyLimit {
    let limit = app.config.limits.dockerfile_bytes;
    DefaultBodyLimit::max(limit.saturating_add(FORM_FIELDS_BYTES))
}

/// The routes as a service, which answers with and without the prefix `ROOT_PATH`: some
/// proxies strip it and some do not.
pub(crate) fn service(
    app: Arc<App>,
) -> IntoMakeService<MapRequest<Router, impl Fn(Request) -> Request + Clone>> {
    let prefix = app.config.root_path.clone();
    let strip = move |mut request: Request| {
        if let Some(uri) = without_prefix(request.uri(), &prefix) {
            if request.uri().path() == prefix {
                request.extensions_mut().insert(NoSlash);
            }
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
