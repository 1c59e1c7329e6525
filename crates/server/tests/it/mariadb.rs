//! The service on a real database server, which also goes away.

use ocibuild_store::testing::MariaDb;
use reqwest::StatusCode;

use crate::fixture::{Fixture, answer, form};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_outlives_its_database() {
    let mut server = MariaDb::start().unwrap();
    let port = server.settings("").port.to_string();
    let vars = [("MYSQL_HOST", "127.0.0.1"), ("MYSQL_PORT", port.as_str())];
    let fixture = Fixture::start(&vars).await;
    let before = fixture.build("ok").await;
    fixture.reach(&before, "completed").await;
    fixture.make_gate("gated");
    let during = fixture.build("gated").await;
    fixture.noted("gated.started").await;

    server.stop();
    let state = format!("/task/status?task_id={before}");
    let post = fixture.post("/build_with_dockerfile").form(&form("ok"));
    let (health, state, list, post) = tokio::join!(
        fixture.read("/healthcheck"),
        fixture.read(&state),
        fixture.read("/task"),
        answer(post),
    );
    let unhealthy =
        r#"{"detail":{"status":"unavailable","message":"Task table is not accessible"}}"#;
    assert_eq!(
        health,
        (StatusCode::SERVICE_UNAVAILABLE, unhealthy.to_owned())
    );
    let refused = r#"{"detail":"The task table is not available"}"#;
    assert_eq!(post, (StatusCode::SERVICE_UNAVAILABLE, refused.to_owned()));
    let unknown =
        r#"{"status":"FAILED","build_status":"","message":"The task table is not available"}"#;
    assert_eq!(state, (StatusCode::OK, unknown.to_owned()));
    let empty = r#"{"status":"FAILED","data":[],"message":"The task table is not available"}"#;
    assert_eq!(list, (StatusCode::OK, empty.to_owned()));
    // The build ends while nobody can write it down.
    fixture.open_gate("gated").await;

    server.start_again().unwrap();
    fixture.reach(&during, "completed").await;
    let after = fixture.build("ok").await;
    fixture.reach(&after, "completed").await;
    assert_eq!(fixture.read("/health").await.0, StatusCode::OK);
}
