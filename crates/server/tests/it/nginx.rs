//! Debian's nginx in front, with its default settings for proxies.

use ocibuild_registry::testing::{Nginx, not_installed};
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::fixture::{Fixture, Stream, answer, form, task_id};

/// Nginx waits for so long between two parts of an answer; its default of a minute would
/// make the test as long.
const READ_TIMEOUT: &str = "2s";

/// A proxy that takes `/artifact-builder/` off, as Darwin's ingress does; none where nginx is
/// not installed.
fn start(service: &str) -> Option<Nginx> {
    let location = format!(
        "location /artifact-builder/ {{
             proxy_pass http://{service}/;
             proxy_read_timeout {READ_TIMEOUT};
         }}"
    );
    let nginx = Nginx::start("", &location).unwrap();
    if nginx.is_none() {
        not_installed("nginx");
    }
    nginx
}

fn url(nginx: &Nginx, path: &str) -> String {
    format!("http://{}/artifact-builder{path}", nginx.host())
}

#[tokio::test]
async fn everything_works_behind_a_prefix_and_a_silent_build_breaks_no_stream() {
    let vars = [
        ("OCIBUILD_MAX_BUILDS", "1"),
        ("ROOT_PATH", "/artifact-builder"),
        ("APP_LAYER_URL", "http://builder.example/artifact-builder"),
    ];
    let fixture = Fixture::start(&vars).await;
    let Some(nginx) = start(fixture.address()) else {
        return;
    };
    let http = Client::builder().no_proxy().build().unwrap();

    fixture.make_gate("gated");
    let post = http
        .post(url(&nginx, "/build_with_dockerfile"))
        .form(&form("gated"));
    let (status, body) = answer(post).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let id = task_id(&body);
    let answer_body: Value = serde_json::from_str(&body).unwrap();
    let logs = format!("http://builder.example/artifact-builder/static/{id}.log");
    assert_eq!(answer_body["logs_url"], logs);

    let mut events = Stream::of(http.get(url(&nginx, &format!("/v1/builds/{id}/events")))).await;
    let path = format!("/v1/builds/{id}/log?follow=true");
    let mut text = Stream::of(http.get(url(&nginx, &path))).await;
    events.until("before the gate").await;
    text.until("before the gate").await;
    // Nothing happens for far longer than nginx would wait: neither in the build that runs,
    // nor in the one behind it, which has no line to say so.
    let behind = fixture.build("ok").await;
    let path = format!("/v1/builds/{behind}/events");
    let mut waiting = Stream::of(http.get(url(&nginx, &path))).await;
    tokio::join!(
        waiting.until_count(": alive\n", 10),
        events.until_count("#1 still running after ", 3),
        text.until_count("#1 still running after ", 3),
    );
    fixture.open_gate("gated").await;
    let (events, text, waiting) = tokio::join!(events.rest(), text.rest(), waiting.rest());
    for events in [events, waiting] {
        assert!(events.contains("event: end\n"), "{events}");
    }
    assert_eq!(text, fixture.log(&id).await);

    for (path, part) in [
        (format!("/static/{id}.log"), "Build completed in "),
        ("/".to_owned(), "<html"),
        ("/docs".to_owned(), "swagger"),
        ("/openapi.json".to_owned(), "/artifact-builder"),
        ("/task".to_owned(), id.as_str()),
        ("/healthcheck".to_owned(), "SUCCESS"),
    ] {
        let (status, body) = answer(http.get(url(&nginx, &path))).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(body.contains(part), "{path}: {body}");
    }
}
