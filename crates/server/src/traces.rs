//! Traces: from a request to the steps of the build that it asked for, sent to a collector by
//! OTLP over HTTP where one is configured.
//!
//! A build may run on another replica and long after its request was answered, so the task
//! keeps the place of the request in its trace (W3C Trace Context). Each service has a
//! provider of its own and passes contexts on explicitly; only the span of the current
//! request is found in the surrounding future. A collector that does not answer costs some
//! memory and nothing else: what does not fit is dropped.

mod exporter;
mod task;

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

pub(crate) use self::task::TaskTrace;
use crate::config::Otel;

/// The header of W3C Trace Context.
const TRACE_PARENT: &str = "traceparent";
/// How long the last spans may take to reach the collector when the service ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Makes the spans of one service, or none.
#[derive(Clone, Default)]
pub(crate) struct Traces {
    sent: Option<(SdkTracerProvider, SdkTracer)>,
}

impl Traces {
    /// Sends traces to this collector, if there is one.
    pub(crate) fn new(collector: Option<&Otel>) -> Self {
        let provider = collector.and_then(|otel| match exporter::provider(otel) {
            Ok(provider) => Some(provider),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "no traces are sent");
                None
            }
        });
        let sent = provider.map(|provider| {
            let tracer = provider.tracer("ocibuild");
            (provider, tracer)
        });
        Self { sent }
    }

    fn tracer(&self) -> Option<&SdkTracer> {
        self.sent.as_ref().map(|(_, tracer)| tracer)
    }

    /// Begins the span of a request, in the trace that its client names, if it does.
    pub(crate) fn request(
        &self,
        headers: &HeaderMap,
        method: &'static str,
        route: &str,
    ) -> Context {
        let header = headers
            .get(TRACE_PARENT)
            .and_then(|value| value.to_str().ok());
        let parent = header.map(continued).unwrap_or_default();
        let Some(tracer) = self.tracer() else {
            return parent;
        };
        let span = tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", route.to_owned()),
            ]);
        let span = tracer.build_with_context(span, &parent);
        parent.with_span(span)
    }

    /// Ends the span of a request.
    pub(crate) fn answered(request: &Context, status: StatusCode) {
        let span = request.span();
        let code = i64::from(status.as_u16());
        span.set_attribute(KeyValue::new("http.response.status_code", code));
        if status.is_server_error() {
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// Sends what was not sent yet, as far as that is possible in a short time.
    pub(crate) async fn end(self) {
        let Some((provider, _)) = self.sent else {
            return;
        };
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_WORDS));
        if !matches!(ended.await, Ok(Ok(()))) {
            tracing::warn!("the last spans did not reach the collector in time");
        }
    }
}

/// Gives the place of the current request in its trace, as a task keeps it.
pub(crate) fn trace_parent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Context::current(), &mut carrier);
    carrier.remove(TRACE_PARENT)
}

/// Goes on with a trace that began elsewhere; a new one where the text makes no sense.
fn continued(trace_parent: &str) -> Context {
    let carrier = HashMap::from([(TRACE_PARENT.to_owned(), trace_parent.to_owned())]);
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_trace_is_kept_as_text() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = continued(text);
        assert!(context.span().span_context().is_remote());
        let guard = context.attach();
        assert_eq!(trace_parent().as_deref(), Some(text));
        drop(guard);
        assert_eq!(trace_parent(), None);
    }

    #[test]
    fn nonsense_begins_a_new_trace() {
        for text in [
            "",
            "00",
            "00-0-0-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(!continued(text).span().span_context().is_valid(), "{text}");
        }
    }
}
