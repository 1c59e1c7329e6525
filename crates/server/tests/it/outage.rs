//! The database goes away while builds run: nothing is lost and nothing is built twice.

use std::time::Duration;

use ocibuild_store::testing::MariaDb;
use reqwest::StatusCode;

use crate::fixture::{DIGEST, Fixture, Stream, answer, form};

/// The shortest lease there is, in seconds.
const LEASE: (&str, &str) = ("OCIBUILD_LEASE", "3");

async fn assert_built_once(fixture: &Fixture, id: &str) {
    let build = fixture.shown(id).await;
    assert_eq!(
        (&build["attempts"], &build["digest"]),
        (&1.into(), &DIGEST.into())
    );
    let log = fixture.log(id).await;
    for line in [
        "#1 | before the gate\n",
        "#1 | behind the gate\n",
        "Build completed in ",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_goes_on_while_the_database_is_killed() {
    let mut database = MariaDb::start().unwrap();
    let fixture = Fixture::start_on(&database, &[]).await;
    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    fixture.reach_line(&id, "before the gate").await;
    let mut follower = Stream::of(fixture.get(&format!("/v1/builds/{id}/events"))).await;
    follower.until("before the gate").await;

    database.stop();
    fixture.open_gate("gated").await;
    // Whoever follows here sees what the table cannot know yet.
    follower.until("behind the gate").await;
    assert_eq!(
        fixture.read("/healthcheck").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    database.start_again().unwrap();
    fixture.reach(&id, "completed").await;
    assert_built_once(&fixture, &id).await;
    let seen = follower.rest().await;
    assert!(
        seen.contains("event: end\n") && seen.contains(DIGEST),
        "{seen}"
    );
    assert_eq!(seen.matches("behind the gate").count(), 1, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_a_lease_takes_no_build_away() {
    let mut database = MariaDb::start().unwrap();
    let first = Fixture::start_on(&database, &[LEASE]).await;
    let second = first.beside().await;
    for tag in ["gated-1", "gated-2", "gated-3"] {
        first.make_gate(tag);
    }
    let during = first.build("gated-1").await;
    let after = first.build("gated-2").await;
    first.noted("gated-1.started").await;
    first.noted("gated-2.started").await;
    first.reach_line(&during, "before the gate").await;
    first.reach_line(&after, "before the gate").await;

    database.stop();
    first.open_gate("gated-1").await;
    // The lease has to run out, and that takes its time.
    tokio::time::sleep(Duration::from_secs(4)).await;
    database.start_again().unwrap();
    first.open_gate("gated-2").await;
    for id in [&during, &after] {
        second.reach(id, "completed").await;
        assert_built_once(&second, id).await;
        assert_eq!(first.log(id).await, second.log(id).await);
    }
    let last = second.build("ok").await;
    first.reach(&last, "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_one_that_is_down() {
    let database = MariaDb::start().unwrap();
    let fixture = Fixture::start_on(&database, &[]).await;
    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    fixture.reach_line(&id, "before the gate").await;
    database.pause().unwrap();
    let post = fixture.post("/build_with_dockerfile").form(&form("ok"));
    // Clients and probes give up after some time; the service has to be faster.
    let limit = Duration::from_secs(15);
    let answers = async { tokio::join!(answer(post), fixture.read("/healthcheck")) };
    let (post, health) = tokio::time::timeout(limit, answers).await.unwrap();
    assert_eq!(post.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!post.1.contains("task_id"), "{}", post.1);
    assert_eq!(health.0, StatusCode::SERVICE_UNAVAILABLE);
    fixture.open_gate("gated").await;
    database.resume().unwrap();
    fixture.reach(&id, "completed").await;
    assert_built_once(&fixture, &id).await;
}
