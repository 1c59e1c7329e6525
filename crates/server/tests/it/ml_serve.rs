//! What ML Serve does with the service, replayed: an url-encoded form of four fields, a log
//! URL that it builds itself, and a poll until one of two states.

use std::time::Instant;

use ocibuild_store::testing::MariaDb;
use reqwest::StatusCode;
use serde_json::Value;

use crate::fixture::{Fixture, PATIENCE, answer, form, pause, task_id};

/// Polls as ML Serve does: it knows four states and stops at two of them.
async fn poll(fixture: &Fixture, id: &str) -> Vec<String> {
    let (deadline, mut seen) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        let answer = fixture.json(&format!("/task/status?task_id={id}")).await;
        let state = answer["build_status"].as_str().unwrap().to_owned();
        let known = ["waiting", "running", "completed", "failed"];
        assert!(known.contains(&state.as_str()), "{answer}");
        let ended = matches!(state.as_str(), "completed" | "failed");
        if seen.last() != Some(&state) {
            seen.push(state);
        }
        if ended {
            return seen;
        }
        assert!(Instant::now() < deadline, "{seen:?}");
        pause().await;
    }
}

#[tokio::test]
async fn submit_poll_and_read_the_log() {
    let fixture = Fixture::start(&[("OCIBUILD_MAX_BUILDS", "1")]).await;
    fixture.make_gate("gated");
    let first = fixture.build("gated").await;
    fixture.noted("gated.started").await;

    let body =
        "app_name=serve&image_tag=fails&git_repo=https%3A%2F%2Fgithub.com%2Forg%2Frepo&branch=main";
    let post = fixture
        .post("/build_with_dockerfile")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body);
    let (status, body) = answer(post).await;
    assert_eq!(status, StatusCode::OK);
    let second = task_id(&body);
    // The client never reads `logs_url`; it knows how one is made.
    let url = |id: &str| format!("/static/{id}.log");
    let (status, log) = fixture.read(&url(&second)).await;
    assert_eq!(
        status,
        StatusCode::OK,
        "a log is there from the first moment"
    );
    assert!(log.starts_with(&format!("Task {second} waits")), "{log}");

    let (of_first, of_second, ()) = tokio::join!(
        poll(&fixture, &first),
        poll(&fixture, &second),
        fixture.open_gate("gated"),
    );
    // A poll may come too late for a state that lasts a moment.
    let order = ["waiting", "running", "completed", "failed"];
    for (states, last) in [(of_first, "completed"), (of_second, "failed")] {
        assert_eq!(states.last().unwrap(), last);
        let places = states
            .iter()
            .map(|state| order.iter().position(|known| known == state));
        assert!(places.is_sorted(), "a task goes forward only: {states:?}");
    }
    let log = fixture.log(&second).await;
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("Build failed after "), "{log}");
}

#[tokio::test]
async fn only_what_is_queued_has_a_task_id() {
    let fixture = Fixture::start(&[]).await;
    for field in ["app_name", "image_tag", "git_repo"] {
        let mut fields = form("ok");
        fields.retain(|(name, _)| *name != field);
        let (status, body) = answer(fixture.post("/build_with_dockerfile").form(&fields)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body.get("task_id").is_none(), "{body}");
        assert_eq!(body["detail"][0]["loc"], serde_json::json!(["body", field]));
    }
    assert_eq!(fixture.json("/task").await["data"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_nothing_is_accepted() {
    let mut database = MariaDb::start().unwrap();
    let fixture = Fixture::start_on(&database, &[]).await;
    database.stop();
    let (status, body) = answer(fixture.post("/build_with_dockerfile").form(&form("ok"))).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert!(body.get("task_id").is_none(), "{body}");
}
