//! The list of tasks: newest first, filtered by a form, a page at a time.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use ocibuild_store::{Order, Page, PageQuery, StoreError, Task, TaskState};
use url::form_urlencoded::Serializer;

use super::format;
use super::frame::{At, Frame};
use crate::api::v1::list::{parse, write_cursor};
use crate::app::App;
use crate::auth::Principal;
use crate::page::frame::Failure;

/// The list is at the end of all relative addresses.
const ROOT: &str = "";
/// More tasks of a tenant are not counted.
const COUNT_LIMIT: u32 = 100;

/// Marks a request for `ROOT_PATH` without the slash behind it, relative to which every
/// address of the page would be wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoSlash;

/// Shows the tasks.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    no_slash: Option<Extension<NoSlash>>,
    RawQuery(text): RawQuery,
) -> Result<Response, Failure> {
    let text = text.unwrap_or_default();
    if no_slash.is_some() {
        return Ok(with_slash(&app.config.root_path, &text));
    }
    let mut query = parse(&text).at(ROOT)?;
    query.tenant = who.tenant().map(str::to_owned);
    let page = app.store.page(&query).await.at(ROOT)?;
    let counts = Counts::read(&app, &who).await.at(ROOT)?;
    let frame = Frame {
        root: ROOT,
        title: "Builds",
        script: Some("list.js"),
        content: content(&query, &page, &counts),
    };
    Ok(frame.into_response())
}

/// Leads from `/prefix` to `/prefix/`, relative to whatever is before it.
fn with_slash(prefix: &str, query: &str) -> Response {
    let name = prefix.rsplit('/').next().unwrap_or_default();
    let location = match query {
        "" => format!("{name}/"),
        query => format!("{name}/?{query}"),
    };
    let location = [(header::LOCATION, location)];
    (StatusCode::TEMPORARY_REDIRECT, location).into_response()
}

/// How many tasks wait and run, as far as somebody may know.
struct Counts {
    waiting: String,
    running: String,
}

impl Counts {
    async fn read(app: &App, who: &Principal) -> Result<Self, StoreError> {
        if who.tenant().is_none() {
            let queue = app.store.queue().await?;
            return Ok(Self {
                waiting: queue.waiting.to_string(),
                running: queue.running.to_string(),
            });
        }
        Ok(Self {
            waiting: count(app, who, TaskState::Waiting).await?,
            running: count(app, who, TaskState::Running).await?,
        })
    }
}

/// Counts the tasks of a tenant.
async fn count(app: &App, who: &Principal, state: TaskState) -> Result<String, StoreError> {
    let query = PageQuery {
        tenant: who.tenant().map(str::to_owned),
        state: Some(state),
        app_name: None,
        image_tag: None,
        order: Order::Newest,
        limit: COUNT_LIMIT,
        after: None,
    };
    let page = app.store.page(&query).await?;
    let more = if page.next.is_some() { "+" } else { "" };
    Ok(format!("{}{more}", page.tasks.len()))
}

fn content(query: &PageQuery, page: &Page, counts: &Counts) -> Markup {
    html! {
        div.title {
            h1 { "Builds" }
            p #status .faint role="status" { (counts.running) " running, " (counts.waiting) " waiting" }
        }
        (filters(query))
        div #live { (tasks(query, page)) }
        noscript { p.faint { "Without JavaScript this page stays as it is: load it again for news." } }
    }
}

fn filters(query: &PageQuery) -> Markup {
    let is_filtered =
        query.state.is_some() || query.app_name.is_some() || query.image_tag.is_some();
    html! {
        form.filters method="get" action="./" role="search" aria-label="Filter" {
            label { "Status" select name="status" {
                option value="" { "all" }
                @for state in TaskState::ALL {
                    option value=(state.as_str()) selected[query.state == Some(state)] { (state.as_str()) }
                }
            } }
            label { "App" input name="app_name" value=(query.app_name.as_deref().unwrap_or_default()) autocomplete="off"; }
            label { "Tag" input name="image_tag" value=(query.image_tag.as_deref().unwrap_or_default()) autocomplete="off"; }
            button type="submit" { "Filter" }
            @if is_filtered { a href="./" { "Show all" } }
        }
    }
}

fn tasks(query: &PageQuery, page: &Page) -> Markup {
    let now = Utc::now();
    html! {
        @if page.tasks.is_empty() {
            p.empty { "No builds here." }
        } @else {
            div.scroll { table.tasks {
                thead { tr {
                    th scope="col" { "Status" }
                    th scope="col" { "App" }
                    th scope="col" { "Tag" }
                    th scope="col" { "Commit" }
                    th.number scope="col" { "Duration" }
                    th scope="col" { "Queued" }
                    th scope="col" { "Worker" }
                } }
                tbody { @for task in &page.tasks { (row(task, now)) } }
            } }
        }
        nav.pages aria-label="Pages" {
            @if query.after.is_some() { a rel="first" href=(address(query, None)) { "Newest" } }
            @if let Some(next) = &page.next {
                a rel="next" href=(address(query, Some(write_cursor(next)))) { "Older builds" }
            }
        }
    }
}

fn row(task: &Task, now: DateTime<Utc>) -> Markup {
    let taken = format::taken(task, now).map(format::duration);
    html! {
        tr {
            td { (format::badge(task.state)) }
            th.app scope="row" { a href=(format!("builds/{}", task.id)) { (task.app_name) } }
            td.tag { (task.image_tag) }
            td.commit title=[task.commit.as_deref()] {
                @if let Some(commit) = &task.commit { code { (format::short_commit(commit)) } }
            }
            td.number { (taken.unwrap_or_default()) }
            td.age { (format::ago(task.created_at, now)) }
            td.worker { (task.worker.as_deref().unwrap_or_default()) }
        }
    }
}

/// The address of a page of the same list.
fn address(query: &PageQuery, cursor: Option<String>) -> String {
    let limit = query.limit.to_string();
    let parameters = [
        ("status", query.state.map(TaskState::as_str)),
        ("app_name", query.app_name.as_deref()),
        ("image_tag", query.image_tag.as_deref()),
        ("order", (query.order == Order::Oldest).then_some("oldest")),
        ("limit", Some(limit.as_str())),
        ("cursor", cursor.as_deref()),
    ];
    let mut text = Serializer::new(String::from("./?"));
    for (name, value) in parameters {
        if let Some(value) = value {
            text.append_pair(name, value);
        }
    }
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        let query = parse("status=failed&app_name=a%26b%3D%22&limit=7&order=oldest").unwrap();
        let text = address(&query, None);
        assert_eq!(parse(text.strip_prefix("./?").unwrap()).unwrap(), query);
    }

    #[test]
    fn a_prefix_gets_its_slash() {
        for (prefix, query, expected) in [
            ("/builder", "", "builder/"),
            ("/a/b", "status=failed", "b/?status=failed"),
        ] {
            let response = with_slash(prefix, query);
            assert_eq!(response.headers()[header::LOCATION], expected);
        }
    }
}
