//! The two forms of a build: cancel and build again. They work without JavaScript, and lead
//! back to a page.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ocibuild_store::TaskId;

use super::frame::{At, Failure};
use crate::api::error::ApiError;
use crate::api::queue;
use crate::api::v1::{builds, find};
use crate::app::App;
use crate::auth::Principal;

/// Leads from `/builds/{id}/cancel` to the list.
const ROOT: &str = "../../";

/// Ends a build.
pub(crate) async fn cancel(
    _: OwnForm,
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let task = find(&app, &who, &id).await.at(ROOT)?;
    match builds::end(&app, &task, builds::CANCELLED).await {
        // Somebody was quicker, or the build was: its page says how it ended.
        Ok(_) | Err(ApiError::Conflict(_)) => Ok(to_build(&task.id)),
        Err(error) => Err(Failure::below(ROOT, error)),
    }
}

/// Queues the same build again, and leads to the new one.
pub(crate) async fn retry(
    _: OwnForm,
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let task = find(&app, &who, &id).await.at(ROOT)?;
    let again = builds::again(&app, task).await.at(ROOT)?;
    let task = queue::enqueue(&app, again).await.at(ROOT)?;
    Ok(to_build(&task.id))
}

/// Relative to `/builds/{id}/cancel`; an absolute address would miss a proxy's prefix.
fn to_build(id: &TaskId) -> Response {
    let location = [(header::LOCATION, format!("../{id}"))];
    (StatusCode::SEE_OTHER, location).into_response()
}

/// A form that no other site has sent.
///
/// A browser sends the password of Basic authentication with forms of any site, and may be
/// the only one who reaches a service without tokens. It also says where a form comes from,
/// which no page can change: in `Sec-Fetch-Site`, to HTTPS and loopback, and in `Origin`.
/// The former is enough where it is there: a proxy may have changed `Host`. Without both
/// headers the client is no browser, and nobody else makes it send something.
pub(crate) struct OwnForm;

impl<S: Sync> FromRequestParts<S> for OwnForm {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match is_own(&parts.headers) {
            true => Ok(Self),
            false => Err(Failure::foreign(ROOT)),
        }
    }
}

fn is_own(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let authority = origin.to_str().ok().and_then(|text| text.split_once("://"));
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    match (authority, host) {
        (Some((_, authority)), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_other_sites_are_told_apart() {
        for (site, origin, expected) in [
            (None, None, true),
            (Some("same-origin"), Some("https://builder.example"), true),
            // A proxy gave the service another name than the browser knows.
            (Some("same-origin"), Some("https://outside.example"), true),
            (Some("none"), None, true),
            (Some("same-site"), None, false),
            (Some("cross-site"), Some("https://builder.example"), false),
            (Some("x"), None, false),
            (None, Some("http://builder.example"), true),
            (None, Some("http://Builder.example"), true),
            (None, Some("http://builder.example:81"), false),
            (None, Some("http://evil.example"), false),
            (None, Some("null"), false),
            (None, Some(""), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "builder.example".parse().unwrap());
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_own(&headers), expected, "{site:?} {origin:?}");
        }
    }
}
