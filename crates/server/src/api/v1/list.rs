//! The list of builds: filters, order, pages.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ocibuild_store::{Cursor, Order, PageQuery, TaskState};
use serde::Serialize;
use utoipa::ToSchema;

use super::build::Build;
use crate::api::error::{ApiError, Detail, FieldError, ValidationErrors};
use crate::app::App;
use crate::auth::Principal;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 1000;

/// Some builds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuildPage {
    /// The builds, without their steps.
    builds: Vec<Build>,
    /// What `cursor` has to be for the next page; null on the last one.
    next: Option<String>,
}

/// Lists builds, a page at a time.
#[utoipa::path(
    get,
    path = "/v1/builds",
    operation_id = "list_builds",
    tag = "builds",
    params(
        ("status" = Option<String>, Query, description = "Only those that are `waiting`, `running`, `completed` or `failed`"),
        ("app_name" = Option<String>, Query, description = "Only those of this application"),
        ("image_tag" = Option<String>, Query, description = "Only those with this tag"),
        ("order" = Option<String>, Query, description = "`newest` (default) or `oldest` first"),
        ("limit" = Option<u32>, Query, description = "How many, 1 to 1000 (default 50)"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = BuildPage),
        (status = 422, description = "A parameter is wrong", body = ValidationErrors),
        (status = 503, description = "The task table is not available", body = Detail),
    )
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    RawQuery(query): RawQuery,
) -> Result<Json<BuildPage>, ApiError> {
    let mut query = parse(&query.unwrap_or_default())?;
    query.tenant = who.tenant().map(str::to_owned);
    let page = app.store.page(&query).await?;
    Ok(Json(BuildPage {
        builds: page.tasks.into_iter().map(Build::from).collect(),
        next: page.next.as_ref().map(write_cursor),
    }))
}

/// Reads the parameters; the last of several counts, unknown ones do not.
pub(crate) fn parse(text: &str) -> Result<PageQuery, ApiError> {
    let mut query = PageQuery {
        tenant: None,
        state: None,
        app_name: None,
        image_tag: None,
        order: Order::Newest,
        limit: DEFAULT_LIMIT,
        after: None,
    };
    let mut errors = Vec::new();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        if value.is_empty() {
            continue;
        }
        let mut refuse = |message: &str| {
            errors.push(FieldError::at("query", &name, message, Some(&value)));
        };
        match &*name {
            "status" => match TaskState::from_text(&value) {
                Some(state) => query.state = Some(state),
                None => refuse("one of waiting, running, completed, failed"),
            },
            "app_name" => query.app_name = Some(value.into_owned()),
            "image_tag" => query.image_tag = Some(value.into_owned()),
            "order" => match &*value {
                "newest" => query.order = Order::Newest,
                "oldest" => query.order = Order::Oldest,
                _ => refuse("one of newest, oldest"),
            },
            "limit" => match value.parse() {
                Ok(limit @ 1..=MAX_LIMIT) => query.limit = limit,
                _ => refuse("a number from 1 to 1000"),
            },
            "cursor" => match read_cursor(&value) {
                Some(cursor) => query.after = Some(cursor),
                None => refuse("not a cursor of this service"),
            },
            _ => {}
        }
    }
    match errors.is_empty() {
        true => Ok(query),
        false => Err(ApiError::Invalid(errors)),
    }
}

/// Writes a place so that nobody is tempted to compute with it.
pub(crate) fn write_cursor(cursor: &Cursor) -> String {
    URL_SAFE_NO_PAD.encode(format!("{} {}", cursor.created_micros, cursor.task_id))
}

fn read_cursor(text: &str) -> Option<Cursor> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (created, task_id) = text.split_once(' ')?;
    Some(Cursor {
        created_micros: created.parse().ok()?,
        task_id: task_id.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read() {
        let query =
            parse("status=failed&app_name=a%20b&order=oldest&limit=7&x=y&image_tag=").unwrap();
        assert_eq!(query.state, Some(TaskState::Failed));
        assert_eq!(query.app_name.as_deref(), Some("a b"));
        assert_eq!((query.order, query.limit), (Order::Oldest, 7));
        assert_eq!(query.image_tag, None);
        for wrong in [
            "status=done",
            "order=up",
            "limit=0",
            "limit=1001",
            "limit=x",
            "cursor=!",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cursors_come_back() {
        let cursor = Cursor {
            created_micros: 1_764_000_000_123_456,
            task_id: "id-0123".to_owned(),
        };
        let text = write_cursor(&cursor);
        assert_eq!(read_cursor(&text), Some(cursor.clone()));
        assert_eq!(
            parse(&format!("cursor={text}")).unwrap().after,
            Some(cursor)
        );
    }
}
