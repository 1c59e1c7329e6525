//! The numbers of the service, read as Prometheus reads them.

use std::collections::{BTreeMap, BTreeSet};

use ocibuild_store::testing::MariaDb;
use reqwest::StatusCode;

use crate::fixture::{Fixture, answer, form};

/// A scrape, by the name and the labels of each sample.
struct Scrape {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Scrape {
    async fn of(fixture: &Fixture) -> Self {
        let response = fixture.get("/metrics").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let content_type = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        Self::parse(&response.text().await.unwrap())
    }

    /// Reads the text format strictly: each family is described before its samples, which
    /// follow each other, and no sample is there twice.
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'));
        let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
        let mut described = BTreeSet::new();
        let mut family = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, meaning) = rest.split_once(' ').unwrap();
                assert!(
                    !meaning.is_empty() && described.insert(name.to_owned()),
                    "{line}"
                );
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(described.contains(name), "{name} has no description");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(
                    types.insert(name.to_owned(), kind.to_owned()).is_none(),
                    "{line}"
                );
                name.clone_into(&mut family);
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let name = sample.split('{').next().unwrap();
                let valid = |c: char| c.is_ascii_lowercase() || c == '_';
                assert!(name.chars().all(valid), "{line}");
                let suffix = name.strip_prefix(&family).expect(line);
                let suffixes: &[&str] = match types[&family].as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{line}");
                let value: f64 = value.parse().unwrap();
                assert!(samples.insert(sample.to_owned(), value).is_none(), "{line}");
            }
        }
        let scrape = Self { samples, types };
        scrape.check_labels();
        scrape
    }

    /// No label has a value that this program does not know.
    fn check_labels(&self) {
        for sample in self.samples.keys() {
            let Some((_, labels)) = sample.split_once('{') else {
                continue;
            };
            for label in labels.strip_suffix('}').unwrap().split(',') {
                let (name, value) = label.split_once('=').unwrap();
                let value = value.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
                let known = match name {
                    "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
                    "status" => value.len() == 3 && value.parse::<u16>().is_ok(),
                    "route" => value == "none" || value.starts_with('/'),
                    "method" => ["GET", "POST", "_OTHER"].contains(&value),
                    "version" => value == env!("CARGO_PKG_VERSION"),
                    "result" | "code" | "kind" | "cache" | "how" | "fate" | "action" => value
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                    _ => false,
                };
                assert!(known, "{sample}");
            }
        }
    }

    fn get(&self, sample: &str) -> f64 {
        *self
            .samples
            .get(sample)
            .unwrap_or_else(|| panic!("no {sample} in {:#?}", self.samples))
    }

    /// Adds up all samples of a metric.
    fn sum(&self, name: &str) -> f64 {
        let samples = self.samples.iter();
        let mine = samples.filter(|(sample, _)| sample.split('{').next() == Some(name));
        mine.map(|(_, value)| value).sum()
    }
}

#[tokio::test]
async fn everything_that_happens_is_counted() {
    let fixture = Fixture::start(&[("OCIBUILD_MAX_BUILDS", "3")]).await;
    let before = Scrape::of(&fixture).await;
    for name in [
        "ocibuild_tasks_queued_total",
        "ocibuild_leases_lost_total",
        "ocibuild_cache_hits_total",
    ] {
        assert_eq!(
            before.get(name),
            0.0,
            "{name} is there before anything happens"
        );
    }
    let cancelled = fixture.build("hangs").await;
    fixture.noted("hangs.started").await;
    for (tag, end) in [
        ("ok", "completed"),
        ("traced", "completed"),
        ("fails", "failed"),
        ("killed", "failed"),
    ] {
        let id = fixture.build(tag).await;
        fixture.reach(&id, end).await;
    }
    let during = Scrape::of(&fixture).await;
    assert_eq!(during.get("ocibuild_builds_running"), 1.0);
    assert_eq!(during.get("ocibuild_builds_max"), 3.0);
    let cancel = fixture.post(&format!("/v1/builds/{cancelled}/cancel"));
    assert_eq!(answer(cancel).await.0, StatusCode::ACCEPTED);
    fixture.reach(&cancelled, "failed").await;

    let after = Scrape::of(&fixture).await;
    for (sample, expected) in [
        ("ocibuild_tasks_queued_total", 5.0),
        ("ocibuild_task_waiting_seconds_count", 5.0),
        (
            "ocibuild_build_seconds_count{result=\"completed\",code=\"none\"}",
            2.0,
        ),
        (
            "ocibuild_build_seconds_count{result=\"failed\",code=\"command\"}",
            1.0,
        ),
        (
            "ocibuild_build_seconds_count{result=\"failed\",code=\"cancelled\"}",
            1.0,
        ),
        (
            "ocibuild_build_seconds_bucket{result=\"completed\",code=\"none\",le=\"7200\"}",
            2.0,
        ),
        ("ocibuild_tasks_cancelled_total", 1.0),
        (
            "ocibuild_step_seconds_count{kind=\"copy\",cache=\"hit\"}",
            2.0,
        ),
        (
            "ocibuild_step_seconds_count{kind=\"run\",cache=\"miss\"}",
            1.0,
        ),
        (
            "ocibuild_step_seconds_sum{kind=\"run\",cache=\"miss\"}",
            0.25,
        ),
        (
            "ocibuild_step_seconds_count{kind=\"push\",cache=\"miss\"}",
            1.0,
        ),
        ("ocibuild_cache_hits_total", 2.0),
        ("ocibuild_cache_misses_total", 1.0),
        ("ocibuild_pushed_bytes_total{how=\"uploaded\"}", 1000.0),
        ("ocibuild_pushed_bytes_total{how=\"mounted\"}", 24.0),
        (
            "ocibuild_http_requests_total{route=\"/build_with_dockerfile\",method=\"POST\",status=\"200\"}",
            5.0,
        ),
        (
            "ocibuild_http_request_seconds_count{route=\"/build_with_dockerfile\",method=\"POST\"}",
            5.0,
        ),
    ] {
        assert_eq!(after.get(sample), expected, "{sample}");
    }
    assert_eq!(after.sum("ocibuild_build_seconds_count"), 5.0);
    assert_eq!(after.sum("ocibuild_database_errors_total"), 0.0);
    for name in [
        "ocibuild_process_resident_memory_bytes",
        "ocibuild_process_open_fds",
        "ocibuild_log_bytes_total",
    ] {
        assert!(after.get(name) > 0.0, "{name}");
    }
}

#[tokio::test]
async fn the_queue_is_seen() {
    let fixture = Fixture::start(&[("OCIBUILD_MAX_BUILDS", "1")]).await;
    for tag in ["gated-1", "gated-2", "gated-3"] {
        fixture.make_gate(tag);
        fixture.build(tag).await;
        fixture.noted("gated-1.started").await;
    }
    // The first look is taken now; earlier ones may be kept for a moment.
    let scrape = Scrape::of(&fixture).await;
    assert_eq!(scrape.get("ocibuild_queue_waiting"), 2.0);
    assert_eq!(scrape.get("ocibuild_queue_running"), 1.0);
    assert!(scrape.get("ocibuild_queue_oldest_seconds") >= 0.0);
    assert_eq!(scrape.types["ocibuild_queue_waiting"], "gauge");
}

#[tokio::test]
async fn no_label_holds_what_a_user_typed() {
    let fixture = Fixture::start(&[]).await;
    let mut typed = form("canary-tag");
    typed[0].1 = "canary-app".to_owned();
    answer(fixture.post("/build_with_dockerfile").form(&typed)).await;
    fixture.read("/canary-path").await;
    fixture.read("/static/canary.log").await;
    fixture.read("/task/status?task_id=canary").await;
    let method = reqwest::Method::from_bytes(b"CANARY").unwrap();
    let mut request = fixture.get("/task").build().unwrap();
    *request.method_mut() = method;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.execute(request).await.unwrap();
    let (_, text) = fixture.read("/metrics").await;
    assert!(!text.to_lowercase().contains("canary"), "{text}");
    let scrape = Scrape::parse(&text);
    assert_eq!(
        scrape.get("ocibuild_http_requests_total{route=\"none\",method=\"GET\",status=\"404\"}"),
        1.0
    );
    assert_eq!(
        scrape.get(
            "ocibuild_http_requests_total{route=\"/static/{file}\",method=\"GET\",status=\"404\"}"
        ),
        1.0
    );
    assert_eq!(
        scrape
            .get("ocibuild_http_requests_total{route=\"/task\",method=\"_OTHER\",status=\"405\"}"),
        1.0
    );
}

#[tokio::test]
async fn with_tokens_only_administrators_read_the_numbers() {
    let tokens = [("OCIBUILD_TOKENS", "team:tenants,*:admins")];
    let fixture = Fixture::start(&tokens).await;
    let read = |token: &'static str| answer(fixture.get("/metrics").bearer_auth(token));
    assert_eq!(fixture.read("/metrics").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(read("wrong").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(read("tenants").await.0, StatusCode::NOT_FOUND);
    assert_eq!(read("admins").await.0, StatusCode::OK);
}

#[tokio::test]
async fn followers_are_counted_while_they_listen() {
    let fixture = Fixture::start(&[]).await;
    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    fixture.noted("gated.started").await;
    let follower = fixture.get(&format!("/v1/builds/{id}/log?follow=true"));
    let follower = follower.send().await.unwrap();
    assert_eq!(
        Scrape::of(&fixture).await.get("ocibuild_log_followers"),
        1.0
    );
    fixture.open_gate("gated").await;
    follower.text().await.unwrap();
    fixture.reach(&id, "completed").await;
    assert_eq!(
        Scrape::of(&fixture).await.get("ocibuild_log_followers"),
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_told_without_a_database() {
    let mut server = MariaDb::start().unwrap();
    let port = server.settings("").port.to_string();
    let vars = [("MYSQL_HOST", "127.0.0.1"), ("MYSQL_PORT", port.as_str())];
    let fixture = Fixture::start(&vars).await;
    let before = Scrape::of(&fixture).await;
    assert_eq!(before.get("ocibuild_queue_waiting"), 0.0);
    server.stop();
    let post = fixture.post("/build_with_dockerfile").form(&form("ok"));
    assert_eq!(answer(post).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let enqueue = "ocibuild_database_errors_total{action=\"enqueue\"}";
    assert_eq!(Scrape::of(&fixture).await.get(enqueue), 1.0);
    // What the table said before is kept for a second.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let scrape = Scrape::of(&fixture).await;
        if !scrape.samples.contains_key("ocibuild_queue_waiting") {
            assert!(!scrape.types.contains_key("ocibuild_queue_oldest_seconds"));
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "an old answer is still given"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
