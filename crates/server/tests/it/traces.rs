//! Traces, as a collector gets them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::fixture::{COMMIT, DIGEST, Fixture, answer, form, task_id};

/// A collector on loopback.
struct Collector {
    url: String,
    got: Arc<Mutex<Got>>,
}

/// What came so far.
#[derive(Default)]
struct Got {
    spans: Vec<Span>,
    services: Vec<String>,
    keys: Vec<String>,
    /// The messages as they came.
    bytes: Vec<u8>,
}

impl Collector {
    async fn start() -> Self {
        let got = Arc::<Mutex<Got>>::default();
        let app = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&got));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, got }
    }

    fn spans(&self) -> Vec<Span> {
        self.got.lock().unwrap().spans.clone()
    }

    fn trace(&self, trace_id: &[u8]) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace_id == trace_id);
        spans
    }
}

async fn take(State(got): State<Arc<Mutex<Got>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let mut got = got.lock().unwrap();
    got.bytes.extend_from_slice(&body);
    got.keys.extend(
        headers
            .get("x-key")
            .map(|key| key.to_str().unwrap().to_owned()),
    );
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let name = attributes
            .iter()
            .find(|attribute| attribute.key == "service.name");
        let name = name.and_then(|name| name.value.clone()?.value);
        if let Some(Value::StringValue(name)) = name {
            got.services.push(name);
        }
        let spans = resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        got.spans.extend(spans);
    }
    StatusCode::OK
}

fn text(span: &Span, key: &str) -> Option<String> {
    let attribute = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key)?;
    Some(match attribute.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    })
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {names:?}"));
    assert!(found.next().is_none(), "one {name}: {names:?}");
    span
}

fn failed(span: &Span) -> Option<String> {
    let status = span.status.clone()?;
    (status.code == SpanStatus::Error as i32).then_some(status.message)
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

async fn traced(collector: &Collector, more: &[(&str, &str)]) -> Fixture {
    let mut vars = vec![
        ("ENABLE_OTEL", "true"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_SERVICE_NAME", "builder-under-test"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=collectors-key"),
    ];
    vars.extend(more);
    Fixture::start(&vars).await
}

/// Queues a build within the trace of a caller.
async fn build(fixture: &Fixture, tag: &str) -> String {
    let request = fixture.post("/build_with_dockerfile").form(&form(tag));
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let response = request.header("traceparent", parent).send().await.unwrap();
    assert!(!response.headers().contains_key("traceparent"));
    task_id(&response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_the_request_to_each_step() {
    let collector = Collector::start().await;
    let mut fixture = traced(&collector, &[]).await;
    let id = build(&fixture, "traced").await;
    fixture.reach(&id, "completed").await;
    fixture.stop().await;

    let spans = collector.trace(&hex::decode(TRACE).unwrap());
    let request = named(&spans, "POST /build_with_dockerfile");
    assert_eq!(hex::encode(&request.parent_span_id), CALLER);
    assert_eq!(
        text(request, "http.response.status_code").as_deref(),
        Some("200")
    );
    let task = named(&spans, "build");
    assert_eq!(task.parent_span_id, request.span_id);
    for (key, expected) in [
        ("ocibuild.task", id.as_str()),
        ("ocibuild.app", "serve"),
        ("ocibuild.tag", "traced"),
        ("ocibuild.attempt", "1"),
        ("ocibuild.repository", "https://github.com/org/repo"),
        ("ocibuild.commit", COMMIT),
        ("ocibuild.digest", DIGEST),
        ("ocibuild.result", "completed"),
    ] {
        assert_eq!(text(task, key).as_deref(), Some(expected), "{key}");
    }
    assert_eq!(failed(task), None);
    for name in ["clone", "step copy", "step run", "step push"] {
        let span = named(&spans, name);
        assert_eq!(span.parent_span_id, task.span_id, "{name}");
        assert_eq!(failed(span), None, "{name}");
        assert!(
            span.start_time_unix_nano >= task.start_time_unix_nano,
            "{name}"
        );
    }
    let run = named(&spans, "step run");
    assert_eq!(
        run.end_time_unix_nano - run.start_time_unix_nano,
        250_000_000
    );
    assert_eq!(
        text(run, "ocibuild.step.name").as_deref(),
        Some("[stage 1/2] RUN make")
    );
    assert_eq!(text(run, "ocibuild.step.cached").as_deref(), Some("false"));
    assert_eq!(
        text(named(&spans, "step copy"), "ocibuild.step.cached").as_deref(),
        Some("true")
    );
    let got = collector.got.lock().unwrap();
    assert!(
        !got.services.is_empty() && got.services.iter().all(|name| name == "builder-under-test")
    );
    assert!(!got.keys.is_empty() && got.keys.iter().all(|key| key == "collectors-key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_trace_begin_their_own_and_probes_none() {
    let collector = Collector::start().await;
    let mut fixture = traced(&collector, &[]).await;
    for path in [
        "/health", "/livez", "/readyz", "/metrics", "/task", "/nowhere",
    ] {
        fixture.read(path).await;
    }
    answer(fixture.get("/task").header("traceparent", "00-nonsense")).await;
    fixture.stop().await;
    let spans = collector.spans();
    let mut names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["GET /task", "GET /task", "GET none"]);
    assert!(spans.iter().all(|span| span.parent_span_id.is_empty()));
    assert!(spans[0].trace_id != spans[1].trace_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_goes_on_with_the_trace() {
    let collector = Collector::start().await;
    let mut fixture = traced(&collector, &[("OCIBUILD_SHUTDOWN_GRACE", "0")]).await;
    fixture.make_gate("gated");
    let id = build(&fixture, "gated").await;
    fixture.noted("gated.started").await;
    fixture.stop().await;
    std::fs::remove_file(fixture.meet().join("gated.started")).unwrap();
    fixture.start_again().await;
    fixture.noted("gated.started").await;
    fixture.open_gate("gated").await;
    fixture.reach(&id, "completed").await;
    fixture.stop().await;
    let spans = collector.trace(&hex::decode(TRACE).unwrap());
    let request = named(&spans, "POST /build_with_dockerfile");
    let tasks: Vec<_> = spans.iter().filter(|span| span.name == "build").collect();
    let results: Vec<_> = tasks
        .iter()
        .map(|span| text(span, "ocibuild.result").unwrap())
        .collect();
    assert_eq!(results, ["released", "completed"]);
    assert!(
        tasks
            .iter()
            .all(|span| span.parent_span_id == request.span_id)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_build_says_so_and_tells_no_secret() {
    let collector = Collector::start().await;
    let token = "ghp_canary0123456789";
    let mut fixture = traced(&collector, &[("GITHUB_TOKEN", token)]).await;
    let id = build(&fixture, "tells").await;
    fixture.reach(&id, "failed").await;
    fixture.stop().await;
    let spans = collector.trace(&hex::decode(TRACE).unwrap());
    let task = named(&spans, "build");
    assert_eq!(text(task, "ocibuild.result").as_deref(), Some("failed"));
    assert_eq!(
        text(task, "ocibuild.error.code").as_deref(),
        Some("command")
    );
    let reason = failed(task).unwrap();
    assert_eq!(
        reason,
        "could not read from https://****@github.com/org/repo"
    );
    let step = named(&spans, "step copy");
    assert_eq!(
        failed(step).as_deref(),
        Some("the build ended before the step")
    );
    let got = collector.got.lock().unwrap();
    let contains = |needle: &str| {
        got.bytes
            .windows(needle.len())
            .any(|part| part == needle.as_bytes())
    };
    assert!(contains("github.com/org/repo") && !contains(token));
}

/// Builds with a collector at this address, and ends the service.
async fn outlives(url: &str) {
    let vars = [
        ("ENABLE_OTEL", "true"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
    ];
    let mut fixture = Fixture::start(&vars).await;
    for _ in 0..3 {
        let id = fixture.build("traced").await;
        fixture.reach(&id, "completed").await;
    }
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_changes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    outlives(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_changes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let held = Arc::<Mutex<Vec<_>>>::default();
    let holder = Arc::clone(&held);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            holder.lock().unwrap().push(stream);
        }
    });
    outlives(&url).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while held.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "nobody called the collector");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
