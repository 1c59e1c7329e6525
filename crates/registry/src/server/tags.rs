//! Lists in pages: the tags of a repository, the repositories of the registry
//! (distribution-spec, "Listing Tags"; the catalog is an older habit).

use axum::Json;
use axum::http::header::LINK;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::failure::Failure;
use super::route::Name;
use super::{Call, blocking, header};

/// `GET /v2/<name>/tags/list`.
pub(super) async fn list(call: Call, name: Name) -> Result<Response, Failure> {
    let (store, of) = (call.store.clone(), name.clone());
    let tags = blocking(move || store.tags(&of)).await?;
    let tags = tags.ok_or_else(Failure::name_unknown)?;
    let path = format!("/v2/{name}/tags/list");
    let (tags, link) = page(tags, &call, &path);
    let body = json!({"name": name.as_str(), "tags": tags});
    Ok(answer(body, link))
}

/// `GET /v2/_catalog`.
pub(super) async fn catalog(call: Call) -> Result<Response, Failure> {
    let store = call.store.clone();
    let repositories = blocking(move || store.repositories()).await?;
    let (repositories, link) = page(repositories, &call, "/v2/_catalog");
    Ok(answer(json!({"repositories": repositories}), link))
}

/// Cuts a sorted list to what comes after `last`, at most `n` of it; gives the URL of
/// the rest too.
fn page(mut items: Vec<String>, call: &Call, path: &str) -> (Vec<String>, Option<String>) {
    if let Some(last) = call.parameter("last") {
        items.retain(|item| item.as_str() > last);
    }
    let limit = call.parameter("n").and_then(|n| n.parse::<usize>().ok());
    let Some(limit) = limit.filter(|&limit| limit < items.len()) else {
        return (items, None);
    };
    items.truncate(limit);
    // The items of a list are plain words, so they need no escaping but the slash.
    let link = items.last().map(|last| {
        let last = last.replace('/', "%2F");
        format!("<{path}?n={limit}&last={last}>; rel=\"next\"")
    });
    (items, link)
}

fn answer(body: serde_json::Value, link: Option<String>) -> Response {
    let mut response = Json(body).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(LINK, header(link));
    }
    response
}
