//! The queue: its order, its limits, and what the end of a service does to it.

use ocibuild_store::testing::MariaDb;
use reqwest::StatusCode;
use serde_json::json;

use crate::fixture::{Fixture, answer, empty_build, id, is_alive, pause};

#[tokio::test]
async fn one_application_does_not_take_all_places() {
    let vars = [
        ("OCIBUILD_MAX_BUILDS", "3"),
        ("OCIBUILD_MAX_BUILDS_PER_APP", "1"),
    ];
    let fixture = Fixture::start(&vars).await;
    for tag in ["gated-1", "gated-2", "gated-3"] {
        fixture.make_gate(tag);
    }
    let first = fixture.build("gated-1").await;
    let second = fixture.build("gated-2").await;
    let mut other = empty_build("gated-3");
    other["app_name"] = json!("other");
    let other = id(&fixture.submit(&other).await);
    fixture.noted("gated-1.started").await;
    // It was last in the queue.
    fixture.noted("gated-3.started").await;
    assert_eq!(fixture.state(&second).await, "waiting");
    fixture.open_gate("gated-1").await;
    fixture.noted("gated-2.started").await;
    fixture.open_gate("gated-2").await;
    fixture.open_gate("gated-3").await;
    for id in [first, second, other] {
        fixture.reach(&id, "completed").await;
    }
}

#[tokio::test]
async fn a_build_that_ends_in_time_completes_while_the_service_ends() {
    let mut fixture = Fixture::start(&[("OCIBUILD_SHUTDOWN_GRACE", "60")]).await;
    fixture.make_gate("gated");
    let running = fixture.build("gated").await;
    fixture.noted("gated.started").await;
    assert_eq!(fixture.read("/readyz").await.0, StatusCode::OK);
    fixture.begin_to_stop();
    while fixture.read("/readyz").await.0 != StatusCode::SERVICE_UNAVAILABLE {
        pause().await;
    }
    assert_eq!(fixture.read("/livez").await.0, StatusCode::OK);
    assert_eq!(fixture.state(&running).await, "running");
    // What is queued now waits for the next service.
    let late = fixture.build("ok").await;
    fixture.open_gate("gated").await;
    fixture.stop().await;

    fixture.start_again().await;
    assert_eq!(fixture.state(&running).await, "completed");
    assert_eq!(fixture.shown(&running).await["attempts"], 1);
    fixture.reach(&late, "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_does_not_end_in_time_goes_to_another_replica() {
    let database = MariaDb::start().unwrap();
    let mut first = Fixture::start_on(&database, &[]).await;
    first.make_gate("gated");
    let id = first.build("gated").await;
    let process = first.noted("gated.started").await;
    let second = first.beside().await;
    first.forget("gated.started");
    first.stop().await;
    assert!(!is_alive(&process), "the first build was stopped");
    second.noted("gated.started").await;
    second.open_gate("gated").await;
    second.reach(&id, "completed").await;
    let log = second.log(&id).await;
    assert!(
        log.contains("The service is shutting down; this task waits again\n"),
        "{log}"
    );
    assert_eq!(log.matches("Build completed in ").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_cancelled_through_the_other_replica() {
    let database = MariaDb::start().unwrap();
    let first = Fixture::start_on(&database, &[]).await;
    let id = first.build("tree").await;
    let started = first.noted("tree.started").await;
    let second = first.beside().await;
    let (status, body) = answer(second.post(&format!("/v1/builds/{id}/cancel"))).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let gone = || !started.split_whitespace().any(is_alive);
    let limit = std::time::Duration::from_secs(2);
    crate::fixture::within("the processes to end", limit, gone).await;
    second.reach(&id, "failed").await;
    assert_eq!(second.shown(&id).await["error"]["code"], "cancelled");
}
