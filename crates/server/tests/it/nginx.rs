//! Debian's nginx in front, with its default settings for proxies.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::{Client, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{Fixture, Stream, answer, form, task_id, until};

const PROGRAM: &str = "/usr/sbin/nginx";
/// Nginx waits for so long between two parts of an answer; its default of a minute would
/// make the test as long.
const READ_TIMEOUT: &str = "2s";

/// A proxy that takes `/artifact-builder/` off, as Darwin's ingress does.
struct Nginx {
    _folder: TempDir,
    child: Child,
    url: String,
}

impl Nginx {
    /// None where nginx is not installed.
    fn start(service: &str) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            skip("nginx is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let place = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {place}/{name};\n"))
            .concat();
        let text = format!(
            "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;
             events {{}}
             http {{
                 access_log off;
                 {temporary}
                 server {{
                     listen 127.0.0.1:{port};
                     location /artifact-builder/ {{
                         proxy_pass http://{service}/;
                         proxy_read_timeout {READ_TIMEOUT};
                     }}
                 }}
             }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let child = Command::new(PROGRAM)
            .arg("-p")
            .arg(folder.path())
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self {
            _folder: folder,
            child,
            url: format!("http://127.0.0.1:{port}"),
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}/artifact-builder{path}", self.url)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end when their master asks them to.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test has to be seen")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

#[tokio::test]
async fn everything_works_behind_a_prefix_and_a_silent_build_breaks_no_stream() {
    let vars = [
        ("OCIBUILD_MAX_BUILDS", "1"),
        ("ROOT_PATH", "/artifact-builder"),
        ("APP_LAYER_URL", "http://builder.example/artifact-builder"),
    ];
    let fixture = Fixture::start(&vars).await;
    let Some(nginx) = Nginx::start(fixture.address()) else {
        return;
    };
    let http = Client::builder().no_proxy().build().unwrap();
    let address = nginx.url.trim_start_matches("http://").to_owned();
    until("nginx", || std::net::TcpStream::connect(&address).is_ok()).await;

    fixture.make_gate("gated");
    let post = http
        .post(nginx.url("/build_with_dockerfile"))
        .form(&form("gated"));
    let (status, body) = answer(post).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let id = task_id(&body);
    let answer_body: Value = serde_json::from_str(&body).unwrap();
    let logs = format!("http://builder.example/artifact-builder/static/{id}.log");
    assert_eq!(answer_body["logs_url"], logs);

    let mut events = Stream::of(http.get(nginx.url(&format!("/v1/builds/{id}/events")))).await;
    let path = format!("/v1/builds/{id}/log?follow=true");
    let mut text = Stream::of(http.get(nginx.url(&path))).await;
    events.until("before the gate").await;
    text.until("before the gate").await;
    // Nothing happens for far longer than nginx would wait: neither in the build that runs,
    // nor in the one behind it, which has no line to say so.
    let behind = fixture.build("ok").await;
    let path = format!("/v1/builds/{behind}/events");
    let mut waiting = Stream::of(http.get(nginx.url(&path))).await;
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
        let (status, body) = answer(http.get(nginx.url(&path))).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(body.contains(part), "{path}: {body}");
    }
}
