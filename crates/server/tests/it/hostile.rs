//! Clients that send nonsense, or go away in the middle: nothing breaks, nothing is left.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, Stream, answer, form, until};

/// Sends bytes and gives the head of the answer, if there is one.
async fn send(fixture: &Fixture, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // An answer may be cut off: its request was.
    let _ = tokio::time::timeout(Duration::from_secs(30), read)
        .await
        .expect("the service answers or hangs up");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request whose body has this type; `length` is what it says about it.
fn post(path: &str, content_type: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
         content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

const URL_ENCODED: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn hostile_values_are_refused_and_not_repeated_in_full() {
    let fixture = Fixture::start(&[]).await;
    let long = "a".repeat(1 << 20);
    let values = [
        "a\0b",
        "a\u{1b}[31mb",
        "a\r\nb: c",
        "a\tb",
        "\u{202e}a",
        "../a",
        "a b",
        "$(touch /x)",
        "`id`",
        "-a",
        "a;b",
        "\u{feff}",
        "a\\b",
        "//",
        ".",
        "'",
        "a?b#c",
    ];
    for field in ["image_tag", "app_name", "git_repo", "branch", "app_dir"] {
        for value in values {
            let mut fields = form("ok");
            fields.retain(|(name, _)| *name != field);
            fields.push((field, value.to_owned()));
            let (status, body) = answer(fixture.post("/build_with_dockerfile").form(&fields)).await;
            // A name may hold what a shell does not like: no shell ever sees it.
            let fine = status == StatusCode::UNPROCESSABLE_ENTITY
                || (status == StatusCode::OK && matches!(field, "app_name" | "app_dir" | "branch"));
            assert!(fine, "{field}={value:?}: {status} {body}");
            assert!(!body.contains(['\0', '\u{1b}', '\r', '\n']), "{body}");
            assert!(
                !value.contains('\0') || status != StatusCode::OK,
                "{field}={value:?}"
            );
        }
        let mut fields = form("ok");
        fields.retain(|(name, _)| *name != field);
        fields.push((field, long.clone()));
        let (status, body) = answer(fixture.post("/build_with_dockerfile").form(&fields)).await;
        let refused = matches!(
            status,
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE
        );
        assert!(
            refused && body.len() < 10_000,
            "{field}: {status}, {} bytes",
            body.len()
        );
    }
    // The last of several values counts, as with FastAPI.
    let mut twice = vec![("image_tag", "../..".to_owned())];
    twice.extend(form("ok-last"));
    let (status, body) = answer(fixture.post("/build_with_dockerfile").form(&twice)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    for task in fixture.json("/task").await["data"].as_array().unwrap() {
        assert!(
            ["ok", "ok-last"].contains(&task["image_tag"].as_str().unwrap()),
            "{task}"
        );
    }
}

#[tokio::test]
async fn bodies_that_are_no_forms_are_refused() {
    let fixture = Fixture::start(&[]).await;
    let multipart = "multipart/form-data; boundary=x";
    let cases: &[(&str, &[u8])] = &[
        (URL_ENCODED, b"app_name=a&image_tag=%ff%fe&git_repo=https%3A%2F%2Fgithub.com%2Fa%2Fb"),
        (URL_ENCODED, b"app_name=%&image_tag=%zz&git_repo=%00"),
        (URL_ENCODED, b"\xff\xfe\x00\x01"),
        (URL_ENCODED, b"&&&===&"),
        (URL_ENCODED, b""),
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=", b"--\r\n"),
        (multipart, b""),
        (multipart, b"--x"),
        (multipart, b"--y\r\ncontent-disposition: form-data; name=\"app_name\"\r\n\r\na\r\n--y--\r\n"),
        (multipart, b"--x\r\ncontent-disposition: form-data; name=\"app_name\"\r\n\r\na"),
        (multipart, b"--x\r\ncontent-disposition: form-data\r\n\r\na\r\n--x--\r\n"),
        (multipart, b"--x\r\ncontent-disposition: form-data; name=\"dockerfile\"; filename=\"../../etc/passwd\"\r\n\r\n\xff\r\n--x--\r\n"),
        ("application/json", b"{\"app_name\": \"a\"}"),
        ("text/plain", b"app_name=a"),
        ("\x01", b"x"),
    ];
    for (content_type, body) in cases {
        let answer = send(
            &fixture,
            &post("/build_with_dockerfile", content_type, body.len(), body),
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 4"),
            "{content_type} {body:?}: {answer}"
        );
        assert!(!answer.contains("task_id"), "{answer}");
    }
    assert_eq!(fixture.json("/task").await["data"], json!([]));
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_broken() {
    let fixture = Fixture::start(&[]).await;
    let begun = b"app_name=serve&image_tag=ok&git_repo=https%3A%2F%2Fgithub.com%2Fa%2Fb";
    // Each promises more than it sends.
    send(
        &fixture,
        &post("/build_with_dockerfile", URL_ENCODED, 10_000, begun),
    )
    .await;
    let part =
        b"--x\r\ncontent-disposition: form-data; name=\"dockerfile\"; filename=\"a\"\r\n\r\nFROM";
    let multipart = "multipart/form-data; boundary=x";
    send(
        &fixture,
        &post("/build_with_dockerfile", multipart, 10_000, part),
    )
    .await;
    send(
        &fixture,
        &post("/v1/builds", "application/json", 10_000, b"{\"app_name\""),
    )
    .await;
    let large = vec![7; 3 << 20];
    send(
        &fixture,
        &post("/v1/contexts", "application/x-tar", 30 << 20, &large),
    )
    .await;
    send(&fixture, b"GET /task HTTP/1.1\r\nhos").await;
    assert_eq!(fixture.json("/task").await["data"], json!([]));

    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    for path in ["events", "log?follow=true"] {
        let mut stream = Stream::of(fixture.get(&format!("/v1/builds/{id}/{path}"))).await;
        stream.until("before the gate").await;
        drop(stream);
    }
    fixture.open_gate("gated").await;
    fixture.reach(&id, "completed").await;
    assert_eq!(fixture.read("/healthcheck").await.0, StatusCode::OK);
    // What was uploaded in part can be built by nobody.
    let folder = fixture.folder.path().join("data");
    until("the folders of builds to be gone", || {
        std::fs::read_dir(folder.join("build_artifacts"))
            .unwrap()
            .count()
            == 0
    })
    .await;
}

#[tokio::test]
async fn an_upload_above_the_limit_is_refused_before_it_is_there() {
    let fixture = Fixture::start(&[("OCIBUILD_MAX_CONTEXT", "1M")]).await;
    let (status, body) = answer(fixture.post("/v1/contexts").body(vec![1; 1 << 20])).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    // One byte more; and a length that is a promise only.
    let more = vec![1; (1 << 20) + 1];
    let head = send(
        &fixture,
        &post("/v1/contexts", "application/x-tar", 1 << 40, &more),
    )
    .await;
    assert!(head.starts_with("HTTP/1.1 413"), "{head}");
    let (status, _) = answer(fixture.post("/v1/contexts").body("")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn hostile_paths_and_queries_are_answered_without_a_fault_of_ours() {
    let fixture = Fixture::start(&[]).await;
    let id = fixture.build("ok").await;
    fixture.reach(&id, "completed").await;
    for path in [
        "/static/%00.log",
        "/static/%ff.log",
        "/static/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/task/status?task_id=%00",
        "/task/status?task_id=%ff%fe",
        "/task/logs?task_id='--",
        "/v1/builds?cursor=%00",
        "/v1/builds?app_name=%00",
        "/v1/builds?app_name=%f0%9f%98%80",
        "/v1/builds?image_tag=%ff",
        "/v1/builds?limit=-1",
        "/v1/builds/%00",
        "/v1/builds/%ff",
        "/v1/builds/%F0%9F%98%80/log",
        "/docs/%2e%2e/%2e%2e",
        "//task",
        "/%",
    ] {
        let (status, body) = fixture.read(path).await;
        assert!(status.as_u16() < 500, "{path}: {status} {body}");
    }
    let offset = format!("/v1/builds/{id}/log?offset=18446744073709551615");
    assert_eq!(fixture.read(&offset).await, (StatusCode::OK, String::new()));
    let path = format!("/v1/builds/{id}/events");
    let far = Stream::of(
        fixture
            .get(&path)
            .header("last-event-id", u64::MAX.to_string()),
    )
    .await;
    assert!(far.rest().await.contains("event: end\n"));
    let shown: Value = fixture.shown(&id).await;
    assert_eq!(shown["status"], "completed");
}
