//! The spans of one task: itself, the clone of its repository, and its steps.

use std::time::{Duration, SystemTime};

use ocibuild_store::{Outcome, Step, StepState, Task};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use url::Url;

use super::Traces;
use crate::metrics::StepKind;

/// The most of a text that a span carries.
const TEXT_BYTES: usize = 256;

/// The span of a task that is being built; it ends when this is dropped.
pub(crate) struct TaskTrace {
    sent: Option<Sent>,
}

struct Sent {
    tracer: SdkTracer,
    /// The span of the task.
    context: Context,
    began: SystemTime,
    clone: Option<Span>,
}

impl Traces {
    /// Begins the span of a task below the request that queued it.
    pub(crate) fn task(&self, task: &Task) -> TaskTrace {
        let sent = self.tracer().map(|tracer| {
            let parent = task.trace_parent.as_deref();
            let parent = parent.map(super::continued).unwrap_or_default();
            let began = SystemTime::now();
            let span = SpanBuilder::from_name("build")
                .with_kind(SpanKind::Consumer)
                .with_start_time(began)
                .with_attributes(attributes(task));
            let span = tracer.build_with_context(span, &parent);
            Sent {
                tracer: tracer.clone(),
                context: parent.with_span(span),
                began,
                clone: None,
            }
        });
        TaskTrace { sent }
    }
}

fn attributes(task: &Task) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("ocibuild.task", task.id.to_string()),
        KeyValue::new("ocibuild.app", task.app_name.clone()),
        KeyValue::new("ocibuild.tag", task.image_tag.clone()),
        KeyValue::new("ocibuild.attempt", i64::from(task.attempts)),
    ];
    if let Some(repository) = repository(&task.params.git_repo) {
        attributes.push(KeyValue::new("ocibuild.repository", repository));
    }
    attributes
}

/// Gives a URL without what may be secret in it.
fn repository(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let port = url.port().map(|port| format!(":{port}"));
    let (host, port) = (url.host_str()?, port.unwrap_or_default());
    Some(format!("{}://{host}{port}{}", url.scheme(), url.path()))
}

impl TaskTrace {
    /// The repository is being cloned.
    pub(crate) fn clone_begins(&mut self) {
        if let Some(sent) = &mut self.sent {
            sent.clone = Some(sent.tracer.start_with_context("clone", &sent.context));
        }
    }

    /// The repository was cloned, at this commit.
    pub(crate) fn commit(&mut self, id: &str) {
        let Some(sent) = &mut self.sent else { return };
        let commit = KeyValue::new("ocibuild.commit", id.to_owned());
        sent.context.span().set_attribute(commit.clone());
        if let Some(mut clone) = sent.clone.take() {
            clone.set_attribute(commit);
            clone.end();
        }
    }

    /// A step ended, whose texts are without secrets. One that has no end was cut off now.
    pub(crate) fn step(&self, step: &Step) {
        let Some(sent) = &self.sent else { return };
        let begin = sent.began + Duration::from_millis(step.begin_millis);
        let end = match step.millis {
            Some(millis) => begin + Duration::from_millis(millis),
            None => SystemTime::now().max(begin),
        };
        let kind = StepKind::of(&step.name).as_str();
        let name = KeyValue::new("ocibuild.step.name", shortened(&step.name));
        let mut attributes = vec![
            KeyValue::new("ocibuild.step", i64::from(step.number)),
            KeyValue::new("ocibuild.step.kind", kind),
            KeyValue::new("ocibuild.step.cached", step.state == StepState::Cached),
            name,
        ];
        let layer = step.layer.clone();
        attributes.extend(layer.map(|layer| KeyValue::new("ocibuild.step.layer", layer)));
        let mut span = SpanBuilder::from_name(format!("step {kind}"))
            .with_start_time(begin)
            .with_attributes(attributes)
            .start_with_context(&sent.tracer, &sent.context);
        let error = match step.state {
            StepState::Failed => Some(step.error.as_deref().unwrap_or_default()),
            StepState::Running => Some("the build ended before the step"),
            StepState::Done | StepState::Cached => None,
        };
        if let Some(error) = error {
            span.set_status(Status::error(shortened(error)));
        }
        span.end_with_timestamp(end);
    }

    /// The build ended so; its texts are without secrets.
    pub(crate) fn outcome(&mut self, outcome: &Outcome) {
        let Some(sent) = &mut self.sent else { return };
        let span = sent.context.span();
        span.set_attribute(KeyValue::new("ocibuild.result", outcome.state().as_str()));
        if let Some(digest) = outcome.digest() {
            span.set_attribute(KeyValue::new("ocibuild.digest", digest.to_owned()));
        }
        if let Some((code, reason)) = outcome.failure() {
            span.set_attribute(KeyValue::new("ocibuild.error.code", code.as_str()));
            span.set_status(Status::error(shortened(reason)));
            cut_off(&mut sent.clone);
        }
    }

    /// The build is not this replica's any more, for this reason.
    pub(crate) fn given_up(&mut self, reason: &'static str) {
        let Some(sent) = &mut self.sent else { return };
        let span = sent.context.span();
        span.set_attribute(KeyValue::new("ocibuild.result", reason));
        span.set_status(Status::error(reason));
        cut_off(&mut sent.clone);
    }
}

fn cut_off(clone: &mut Option<Span>) {
    if let Some(clone) = clone {
        clone.set_status(Status::error(
            "the build ended before the repository was there",
        ));
    }
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_without_credentials() {
        for (url, expected) in [
            (
                "https://github.com/org/repo",
                Some("https://github.com/org/repo"),
            ),
            (
                "https://user:pass@host:8443/a.git?token=b#c",
                Some("https://host:8443/a.git"),
            ),
            ("", None),
            ("not a url", None),
        ] {
            assert_eq!(repository(url).as_deref(), expected, "{url}");
        }
    }
}
