//! The description of the API, and a page to read and try it, without the internet.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::Server;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa_swagger_ui::Config;

use super::error::ApiError;
use super::v1::{builds, contexts, list, logs as v1_logs};
use super::{health, logs, metrics, tasks};
use crate::app::App;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ocibuild",
        description = "Builds OCI images from Git repositories"
    ),
    paths(
        tasks::build_with_dockerfile,
        tasks::list,
        tasks::status,
        tasks::logs,
        logs::file,
        health::check,
        health::live,
        health::ready,
        metrics::read,
        builds::submit,
        list::list,
        builds::read,
        builds::cancel,
        builds::retry,
        builds::push,
        contexts::upload,
        contexts::read,
        contexts::append,
        v1_logs::text,
        v1_logs::events,
    ),
    modifiers(&Tokens),
)]
struct Description;

/// The token that a service with tenants needs.
struct Tokens;

impl utoipa::Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", bearer);
        let none = SecurityRequirement::default();
        let token = SecurityRequirement::new("token", Vec::<String>::new());
        openapi.security = Some(vec![none, token]);
    }
}

/// The page finds the description relative to itself, under any prefix. No validator on the
/// internet is asked about it.
static PAGE: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("../openapi.json").validator_url("none")));

/// Gives the description.
pub(crate) async fn openapi(State(app): State<Arc<App>>) -> Json<utoipa::openapi::OpenApi> {
    let mut description = Description::openapi();
    if !app.config.root_path.is_empty() {
        description.servers = Some(vec![Server::new(&app.config.root_path)]);
    }
    Json(description)
}

/// Leads to the page, whose files are beside it; relative, to keep any prefix.
pub(crate) async fn redirect() -> Response {
    (
        StatusCode::TEMPORARY_REDIRECT,
        [(header::LOCATION, "docs/")],
    )
        .into_response()
}

/// Gives the page.
pub(crate) async fn index() -> Result<Response, ApiError> {
    page_file("index.html")
}

/// Gives a file of the page.
pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    page_file(&name)
}

fn page_file(name: &str) -> Result<Response, ApiError> {
    match utoipa_swagger_ui::serve(name, Arc::clone(&PAGE)) {
        Ok(Some(file)) => {
            let content_type = [(header::CONTENT_TYPE, file.content_type)];
            Ok((content_type, file.bytes.into_owned()).into_response())
        }
        Ok(None) => Err(ApiError::NotFound),
        Err(error) => {
            tracing::error!(error, "the page of the API cannot be made");
            Err(ApiError::NotFound)
        }
    }
}
