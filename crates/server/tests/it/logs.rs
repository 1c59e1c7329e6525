//! Logs: followed, resumed, in part, from any replica, after an end, and within limits.

use ocibuild_store::testing::MariaDb;
use reqwest::StatusCode;

use crate::fixture::{Fixture, Stream, answer, pause};

/// The `log` events of a stream: id and data.
fn events(text: &str) -> Vec<(u64, String)> {
    let field = |event: &str, name: &str| {
        let line = event.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.strip_prefix(' ').unwrap_or(value).to_owned())
    };
    text.split("\n\n")
        .filter(|event| field(event, "event:").as_deref() == Some("log"))
        .map(|event| {
            let id = field(event, "id:").unwrap().parse().unwrap();
            (id, field(event, "data:").unwrap_or_default())
        })
        .collect()
}

fn lines(events: &[(u64, String)]) -> String {
    events.iter().map(|(_, line)| format!("{line}\n")).collect()
}

async fn follow(fixture: &Fixture, id: &str) -> Stream {
    Stream::of(fixture.get(&format!("/v1/builds/{id}/events"))).await
}

async fn follow_text(fixture: &Fixture, id: &str) -> Stream {
    Stream::of(fixture.get(&format!("/v1/builds/{id}/log?follow=true"))).await
}

#[tokio::test]
async fn followers_see_every_line_once_and_go_on_where_they_were() {
    let fixture = Fixture::start(&[]).await;
    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    let mut broken = follow(&fixture, &id).await;
    let text = follow_text(&fixture, &id).await;
    let whole = follow(&fixture, &id).await;
    broken.until("before the gate").await;
    // It goes away in the middle of the log, and comes back with what it saw last but one.
    let seen = events(&broken.text);
    drop(broken);
    let seen = &seen[..seen.len() / 2];
    let last = seen.last().unwrap().0;
    let path = format!("/v1/builds/{id}/events");
    let again = Stream::of(fixture.get(&path).header("last-event-id", last.to_string())).await;
    fixture.open_gate("gated").await;
    let (again, whole, text) = tokio::join!(again.rest(), whole.rest(), text.rest());
    let log = fixture.log(&id).await;
    assert_eq!(text, log);
    assert_eq!(lines(&events(&whole)), log);
    assert_eq!(lines(&[seen, &events(&again)].concat()), log);
    assert_eq!(whole.matches("event: end\n").count(), 1, "{whole}");
    assert!(whole.contains(r#""status":"completed""#), "{whole}");
    // A follower that comes after the end gets the same.
    assert_eq!(
        lines(&events(&follow(&fixture, &id).await.rest().await)),
        log
    );
    let wrong = Stream::of(fixture.get(&path).header("last-event-id", "x")).await;
    assert_eq!(lines(&events(&wrong.rest().await)), log);
    let offset = format!("/v1/builds/{id}/log?offset={last}");
    let last = usize::try_from(last).unwrap();
    assert_eq!(
        fixture.read(&offset).await,
        (StatusCode::OK, log[last..].to_owned())
    );
}

#[tokio::test]
async fn a_silent_build_is_not_a_silent_stream() {
    let fixture = Fixture::start(&[]).await;
    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    let mut stream = follow(&fixture, &id).await;
    stream.until("before the gate").await;
    stream.until(": alive\n").await;
    stream.until("#1 still running after ").await;
    fixture.open_gate("gated").await;
    stream.until("event: end\n").await;
}

#[tokio::test]
async fn a_growing_log_is_read_in_parts() {
    let fixture = Fixture::start(&[]).await;
    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    fixture.reach_line(&id, "before the gate\n").await;
    let path = format!("/static/{id}.log");
    let first = fixture.log(&id).await;
    let range = |from: usize| fixture.get(&path).header("range", format!("bytes={from}-"));
    fixture.open_gate("gated").await;
    fixture.reach(&id, "completed").await;
    let (status, rest) = answer(range(first.len())).await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(first + &rest, fixture.log(&id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_shows_the_same_log_also_of_one_that_is_gone() {
    let database = MariaDb::start().unwrap();
    let mut builder = Fixture::start_on(&database, &[]).await;
    builder.make_gate("gated");
    let id = builder.build("gated").await;
    builder.noted("gated.started").await;
    let other = builder.beside().await;
    let mut here = follow(&builder, &id).await;
    let mut there = follow(&other, &id).await;
    let text = follow_text(&other, &id).await;
    here.until("before the gate").await;
    there.until("before the gate").await;
    // The ids mean the same everywhere.
    assert_eq!(events(&here.text), events(&there.text));
    builder.open_gate("gated").await;
    let (here, there, text) = tokio::join!(here.rest(), there.rest(), text.rest());
    assert_eq!(events(&here), events(&there));
    let path = format!("/static/{id}.log");
    let log = builder.log(&id).await;
    assert_eq!(
        (&log, &text),
        (&other.log(&id).await, &lines(&events(&there)))
    );
    builder.stop().await;
    assert_eq!(other.log(&id).await, log);
    let part = other.get(&path).header("range", "bytes=5-20");
    assert_eq!(
        answer(part).await,
        (StatusCode::PARTIAL_CONTENT, log[5..21].to_owned())
    );
}

#[tokio::test]
async fn a_log_is_kept_over_a_restart_even_without_its_file() {
    let mut fixture = Fixture::start(&[]).await;
    let id = fixture.build("ok").await;
    fixture.reach(&id, "completed").await;
    let log = fixture.log(&id).await;
    fixture.stop().await;
    std::fs::remove_file(fixture.folder.path().join(format!("data/logs/{id}.log"))).unwrap();
    fixture.start_again().await;
    assert_eq!(fixture.log(&id).await, log);
    assert_eq!(follow_text(&fixture, &id).await.rest().await, log);
}

#[tokio::test]
async fn a_log_that_is_too_long_says_so_and_how_the_build_ended() {
    let fixture = Fixture::start(&[("OCIBUILD_MAX_LOG", "10k")]).await;
    let id = fixture.build("floods").await;
    fixture.reach(&id, "completed").await;
    let log = fixture.log(&id).await;
    assert!(log.len() < 11_000, "{} bytes", log.len());
    let mut last = log.lines().rev();
    assert!(
        last.next().unwrap().starts_with("Build completed in "),
        "{log}"
    );
    assert_eq!(
        last.next().unwrap(),
        "The log has reached its limit; the rest is left out"
    );
}

/// Waits until the service has pruned the log of `gone`.
async fn wait_until_pruned(fixture: &Fixture, gone: &str) {
    let deadline = std::time::Instant::now() + crate::fixture::PATIENCE;
    let path = format!("/static/{gone}.log");
    while fixture.read(&path).await.0 == StatusCode::OK {
        assert!(
            std::time::Instant::now() < deadline,
            "{gone} is still there"
        );
        pause().await;
    }
}

#[tokio::test]
async fn logs_beyond_the_total_size_are_pruned_oldest_first() {
    let mut fixture = Fixture::start(&[("OCIBUILD_LOG_MAX_TOTAL", "100k")]).await;
    let mut ids = Vec::new();
    for tag in ["floods", "ok"] {
        let id = fixture.build(tag).await;
        fixture.reach(&id, "completed").await;
        ids.push(id);
    }
    fixture.stop().await;
    fixture.start_again().await;
    wait_until_pruned(&fixture, &ids[0]).await;
    assert!(
        !fixture
            .folder
            .path()
            .join(format!("data/logs/{}.log", ids[0]))
            .exists()
    );
    assert!(fixture.log(&ids[1]).await.contains("Build completed in "));
    // The task itself stays.
    assert_eq!(fixture.state(&ids[0]).await, "completed");
}

#[tokio::test]
async fn old_logs_are_pruned_and_their_tasks_stay() {
    let mut fixture = Fixture::start(&[("OCIBUILD_LOG_MAX_AGE", "1s")]).await;
    let old = fixture.build("ok").await;
    fixture.reach(&old, "completed").await;
    // An age in seconds needs that time to pass; the service looks when it starts.
    let deadline = std::time::Instant::now() + crate::fixture::PATIENCE;
    let path = format!("/static/{old}.log");
    loop {
        fixture.stop().await;
        fixture.start_again().await;
        if fixture.read(&path).await.0 == StatusCode::NOT_FOUND {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{old} is still there");
        pause().await;
    }
    assert_eq!(fixture.state(&old).await, "completed");
}
