//! One build: what is known about it, its steps over time, its log.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use ocibuild_store::{FailureCode, Step, Task, TaskState};

use super::format;
use super::frame::{At, Failure, Frame};
use super::log::{TAIL_BYTES, Tail, tail};
use super::waterfall::waterfall;
use crate::api::v1::build::{BuildSource, source};
use crate::api::v1::find;
use crate::app::App;
use crate::auth::Principal;
use crate::request::Request;

/// Leads from `/builds/{id}` to the list.
const ROOT: &str = "../";

/// Shows a build.
pub(crate) async fn build(
    State(app): State<Arc<App>>,
    Extension(who): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let shown = Shown::read(&app, &who, &id).await?;
    let title = format!("{}:{}", shown.task.app_name, shown.task.image_tag);
    let frame = Frame {
        root: ROOT,
        title: &title,
        script: Some("build.js"),
        content: shown.content(),
    };
    Ok(frame.into_response())
}

/// What a page shows of one build.
struct Shown {
    task: Task,
    steps: Vec<Step>,
    tail: Tail,
    /// How many builds come before it.
    ahead: Option<u64>,
    now: DateTime<Utc>,
}

impl Shown {
    async fn read(app: &App, who: &Principal, id: &str) -> Result<Self, Failure> {
        let task = find(app, who, id).await.at(ROOT)?;
        let ahead = match task.state {
            TaskState::Waiting => app.store.ahead(&task.id).await.at(ROOT)?,
            _ => None,
        };
        Ok(Self {
            steps: app.store.steps(&task.id).await.at(ROOT)?,
            tail: tail(&app.logs, &task.id).await.at(ROOT)?,
            ahead,
            now: Utc::now(),
            task,
        })
    }

    fn content(&self) -> Markup {
        let elapsed = format::taken(&self.task, self.now).unwrap_or_default();
        html! {
            div.title {
                h1 { (self.task.app_name) span.tag { ":" (self.task.image_tag) } }
                p #status role="status" { (format::badge(self.task.state)) }
                div #actions .actions { (self.actions()) }
            }
            div #facts { (self.failure()) (self.facts()) }
            section aria-labelledby="steps-title" {
                h2 #steps-title { "Steps" }
                div #steps { (waterfall(&self.steps, elapsed)) }
            }
            section aria-labelledby="log-title" { (self.log()) }
        }
    }

    fn actions(&self) -> Markup {
        let id = &self.task.id;
        html! {
            @if self.task.state.is_final() {
                form method="post" action=(format!("{id}/retry")) { button type="submit" { "Retry" } }
            } @else if self.task.cancel_reason.is_none() {
                form method="post" action=(format!("{id}/cancel")) {
                    button.danger type="submit" { "Cancel" }
                }
            } @else {
                span.faint { "is being stopped" }
            }
        }
    }

    /// Why there is no image, before anything else.
    fn failure(&self) -> Markup {
        let code = self.task.error_code.unwrap_or(FailureCode::Internal);
        html! {
            @if let Some(error) = &self.task.error {
                div.failure {
                    strong { (code.as_str().replace('_', " ")) }
                    " " span.reason { (error) }
                }
            }
        }
    }

    fn facts(&self) -> Markup {
        let task = &self.task;
        let taken = format::taken(task, self.now).map(format::duration);
        html! {
            dl.facts {
                (self.origin())
                (fact("Commit", task.commit.as_deref(), code))
                (fact("Digest", task.digest.as_deref(), code))
                @if !task.pushed.is_empty() {
                    div.wide { dt { "Images" } dd { ul { @for image in &task.pushed {
                        li { (code(&format!("{}@{}", image.reference, image.digest))) }
                    } } } }
                }
                (self.wishes())
                (fact("Duration", taken.as_deref(), plain))
                @if let Some(ahead) = self.ahead { (fact("In the queue", Some(&format!("{ahead} ahead")), plain)) }
                (fact("Attempts", Some(&task.attempts.to_string()), plain))
                (fact("Tenant", task.tenant.as_deref(), plain))
                (fact("Worker", task.worker.as_deref(), plain))
                (fact("Wanted to end", task.cancel_reason.as_deref(), plain))
                (time("Queued", Some(task.created_at)))
                (time("Started", task.started_at))
                (time("Ended", task.ended_at))
                (fact("Build", Some(task.id.as_str()), code))
            }
        }
    }

    /// Where the files come from.
    fn origin(&self) -> Markup {
        html! { @match source(&self.task) {
            BuildSource::Git { url, reference, subdir } => {
                (fact("Repository", Some(&url), link))
                (fact("Ref", Some(reference.as_deref().unwrap_or("(default branch)")), plain))
                (fact("Directory", subdir.as_deref(), plain))
            },
            BuildSource::Http { url } => (fact("Context", Some(&url), link)),
            BuildSource::Oci { reference } => (fact("Context artifact", Some(&reference), code)),
            BuildSource::Upload { id } => (fact("Uploaded context", Some(&id), code)),
            BuildSource::Empty => (fact("Context", Some("none"), plain)),
            BuildSource::Image { reference } => (fact("Pushes again", Some(&reference), code)),
        } }
    }

    /// What was asked for beyond the usual.
    fn wishes(&self) -> Markup {
        let request = self.task.request.as_deref();
        let request: Request = request
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let platforms = request.platforms.join(", ");
        let platforms = Some(platforms.as_str()).filter(|text| !text.is_empty());
        html! {
            (fact("Dockerfile", request.dockerfile_path.as_deref(), plain))
            (fact("Target", request.target.as_deref(), plain))
            (fact("Platform", platforms, plain))
            @if request.cache.disabled { (fact("Cache", Some("not used"), plain)) }
        }
    }

    fn log(&self) -> Markup {
        let id = &self.task.id;
        html! {
            div.bar-title {
                h2 #log-title { "Log" }
                span #log-state .faint {}
                a href=(format!("../v1/builds/{id}/log")) { "Whole log" }
            }
            @if self.tail.begin > 0 {
                p.faint { "The last " (format::size(TAIL_BYTES)) " of it:" }
            }
            pre #log tabindex="0" aria-labelledby="log-title"
                data-events=(format!("../v1/builds/{id}/events"))
                data-offset=(self.tail.end)
                data-live=(!self.tail.ended || !self.task.state.is_final()) {
                // Browsers drop a newline right behind the tag; this one saves that of the log.
                "\n" (self.tail.text)
            }
        }
    }
}

/// One fact, where it is known.
fn fact(name: &str, value: Option<&str>, show: fn(&str) -> Markup) -> Markup {
    html! { @if let Some(value) = value { div { dt { (name) } dd { (show(value)) } } } }
}

fn time(name: &str, time: Option<DateTime<Utc>>) -> Markup {
    html! { @if let Some(time) = time { div { dt { (name) } dd { (format::moment(time)) } } } }
}

fn plain(text: &str) -> Markup {
    html! { (text) }
}

fn code(text: &str) -> Markup {
    html! { code { (text) } }
}

/// A link, if it leads to a web page and does nothing else.
fn link(url: &str) -> Markup {
    let parsed = url::Url::parse(url);
    let is_web = parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    html! {
        @if is_web { a href=(url) rel="noreferrer noopener" { (url) } } @else { (url) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_pages_become_links() {
        for (url, expected) in [
            ("https://example.com/a", true),
            ("http://example.com/a", true),
            ("javascript:alert(1)", false),
            (" javascript:alert(1)", false),
            ("data:text/html,x", false),
            ("//example.com", false),
            ("", false),
        ] {
            assert_eq!(link(url).into_string().contains("<a "), expected, "{url}");
        }
    }
}
