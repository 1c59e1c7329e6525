//! The JSON side of the service: submit, list, read, cancel, build again, push again.

use std::io::Write;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::fixture::{COMMIT, DIGEST, Fixture, answer, empty_build, id, is_alive, until, within};

/// How soon a cancelled build is gone with everything that it started.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);

fn git_build(image_tag: &str) -> Value {
    json!({
        "app_name": "serve",
        "image_tag": image_tag,
        "context": {
            "type": "git", "url": "https://git.example/org/repo", "ref": "v1", "subdir": "a/b",
        },
        "dockerfile": {"path": "docker/Dockerfile"},
        "args": {"VERSION": "1"},
        "target": "final",
        "platforms": ["linux/arm64", "linux/amd64"],
        "labels": {"team": "ml"},
        "output": {
            "compression": "zstd", "compression_level": 9, "annotations": ["index:a=b", "c=d"],
        },
        "cache": {
            "scope": "nightly", "disabled": true, "mode": "max",
            "from": ["localhost:5000/cache:main"], "to": ["localhost:5000/cache:nightly"],
        },
    })
}

#[tokio::test]
async fn a_git_build_is_told_everything() {
    let fixture = Fixture::start(&[]).await;
    let response = fixture
        .post("/v1/builds")
        .json(&git_build("shows"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let build: Value = response.json().await.unwrap();
    let id = id(&build);
    assert_eq!(location, format!("/v1/builds/{id}"));
    assert_eq!(build["status"], "waiting");
    fixture.reach(&id, "completed").await;
    let spec: Value = serde_json::from_str(&fixture.noted("spec").await).unwrap();
    let source = json!({
        "kind": "git", "url": "https://git.example/org/repo", "reference": "v1",
        "subdir": "a/b", "token": null,
    });
    assert_eq!(spec["source"], source);
    assert_eq!(spec["dockerfile"], json!({"path": "docker/Dockerfile"}));
    assert_eq!(spec["args"], json!({"VERSION": "1"}));
    assert_eq!(spec["target"], "final");
    assert_eq!(spec["platforms"], json!(["linux/arm64", "linux/amd64"]));
    assert_eq!(spec["labels"], json!({"team": "ml"}));
    let output = json!({
        "compression": "zstd", "compression_level": 9, "force_compression": false,
        "media_types": "oci", "annotations": ["index:a=b", "c=d"],
    });
    assert_eq!(spec["output"], output);
    assert_eq!(spec["cache_scope"], "nightly");
    assert_eq!(spec["no_cache"], true);
    assert_eq!(spec["cache_from"], json!(["localhost:5000/cache:main"]));
    assert_eq!(spec["cache_to"], json!(["localhost:5000/cache:nightly"]));
    assert_eq!(spec["cache_all_steps"], true);
    let shown = fixture.shown(&id).await;
    assert_eq!(shown["source"]["type"], "git");
    assert_eq!(
        (&shown["commit"], &shown["digest"]),
        (&json!(COMMIT), &json!(DIGEST))
    );
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[tokio::test]
async fn an_uploaded_context_reaches_the_build_as_it_came() {
    let fixture = Fixture::start(&[]).await;
    // More than one part of the table, and nothing that compresses to one.
    let tar: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for bytes in [tar.clone(), gzip(&tar)] {
        let (status, body) = answer(fixture.post("/v1/contexts").body(bytes.clone())).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        let context: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(context["size"], bytes.len());
        let build = json!({
            "app_name": "serve", "image_tag": "takes",
            "context": {"type": "upload", "id": context["id"]},
        });
        let id = id(&fixture.submit(&build).await);
        fixture.reach(&id, "completed").await;
        assert_eq!(
            std::fs::read(fixture.meet().join("context")).unwrap(),
            bytes
        );
        assert_eq!(fixture.shown(&id).await["source"]["id"], context["id"]);
        fixture.forget("context");
    }
    let unknown = json!({
        "app_name": "serve", "image_tag": "takes",
        "context": {"type": "upload", "id": "ctx-00000000000000000000000000000000"},
    });
    let (status, body) = answer(fixture.post("/v1/builds").json(&unknown)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert!(body.contains(r#""loc":["body","context","id"]"#), "{body}");
}

#[tokio::test]
async fn a_dockerfile_as_text_needs_no_files() {
    let fixture = Fixture::start(&[]).await;
    let id = id(&fixture.submit(&empty_build("shows")).await);
    fixture.reach(&id, "completed").await;
    let spec: Value = serde_json::from_str(&fixture.noted("spec").await).unwrap();
    assert_eq!(spec["source"], json!({"kind": "empty"}));
    assert_eq!(spec["dockerfile"]["text"], "FROM scratch\nLABEL a=1\n");
}

#[tokio::test]
async fn what_is_wrong_is_said_at_once_and_field_by_field() {
    let fixture = Fixture::start(&[]).await;
    let wrong = json!({
        "app_name": "", "image_tag": "a/b",
        "context": {"type": "git", "url": "https://user:hidden@git.example/a"},
        "dockerfile": {"path": "../../etc/passwd"},
        "target": "a b", "platforms": ["linux/amd64", "linux/"],
        "secrets": [{"id": "../x"}], "destinations": ["no-registry"],
        "timeout_seconds": 0, "limits": {"memory_bytes": 0},
        "output": {"compression": "zstd", "media_types": "docker"},
    });
    let (status, body) = answer(fixture.post("/v1/builds").json(&wrong)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!body.contains("hidden"), "{body}");
    let answer_body: Value = serde_json::from_str(&body).unwrap();
    let fields: Vec<_> = answer_body["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["loc"].to_string())
        .collect();
    for field in [
        "app_name",
        "image_tag",
        "url",
        "path",
        "target",
        "platforms",
        "secrets",
        "destinations",
        "timeout_seconds",
        "memory_bytes",
        "output",
    ] {
        let quoted = format!("\"{field}\"");
        assert!(
            fields.iter().any(|loc| loc.contains(&quoted)),
            "{field}: {fields:?}"
        );
    }
    for body in [
        "",
        "[]",
        "{",
        "null",
        r#"{"app_name": 1}"#,
        r#"{"unknown": 1}"#,
    ] {
        let (status, text) = answer(fixture.post("/v1/builds").body(body)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {text}");
    }
    assert_eq!(fixture.json("/v1/builds").await["builds"], json!([]));
}

fn tags(page: &Value) -> Vec<String> {
    let builds = page["builds"].as_array().unwrap().iter();
    builds
        .map(|build| build["image_tag"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn lists_are_filtered_ordered_and_cut_into_pages() {
    let fixture = Fixture::start(&[]).await;
    for tag in ["ok-1", "ok-2", "fails", "ok-3", "ok-4"] {
        let id = fixture.build(tag).await;
        fixture
            .reach(
                &id,
                if tag == "fails" {
                    "failed"
                } else {
                    "completed"
                },
            )
            .await;
    }
    let newest = fixture.json("/v1/builds").await;
    assert_eq!(tags(&newest), ["ok-4", "ok-3", "fails", "ok-2", "ok-1"]);
    assert_eq!(newest["next"], Value::Null);
    let failed = fixture.json("/v1/builds?status=failed").await;
    assert_eq!(tags(&failed), ["fails"]);
    assert_eq!(failed["builds"][0]["error"]["code"], "command");
    assert_eq!(
        tags(&fixture.json("/v1/builds?image_tag=ok-2").await),
        ["ok-2"]
    );
    assert!(tags(&fixture.json("/v1/builds?app_name=other").await).is_empty());

    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/builds?order=oldest&limit=2&cursor={cursor}");
        let page = fixture.json(&path).await;
        assert!(tags(&page).len() <= 2);
        all.extend(tags(&page));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(all, ["ok-1", "ok-2", "fails", "ok-3", "ok-4"]);
    for query in ["status=done", "limit=0", "order=up", "cursor=x"] {
        let (status, _) = fixture.read(&format!("/v1/builds?{query}")).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
}

#[tokio::test]
async fn a_build_shows_its_steps_and_its_place_in_the_queue() {
    let fixture = Fixture::start(&[("OCIBUILD_MAX_BUILDS", "1")]).await;
    fixture.make_gate("gated");
    let running = fixture.build("gated").await;
    fixture.noted("gated.started").await;
    let waiting = [
        fixture.build("steps-1").await,
        fixture.build("steps-2").await,
    ];
    for (place, id) in waiting.iter().enumerate() {
        assert_eq!(fixture.shown(id).await["queue_position"], place);
    }
    let now = fixture.shown(&running).await;
    assert_eq!(
        (&now["status"], &now["queue_position"]),
        (&json!("running"), &Value::Null)
    );
    assert!(
        now["worker"].is_string() && now["started_at"].is_string(),
        "{now}"
    );
    fixture.open_gate("gated").await;
    fixture.reach(&waiting[1], "completed").await;
    let shown = fixture.shown(&waiting[1]).await;
    let steps = shown["steps"].as_array().unwrap();
    let states: Vec<_> = steps
        .iter()
        .map(|step| step["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["cached", "done"]);
    assert_eq!(steps[1]["name"], "[stage 1/1] RUN make");
    assert_eq!(steps[1]["duration_ms"], 1234);
    assert_eq!(steps[1]["layer"]["size"], 4096);
    assert_eq!(
        shown["images"][0]["reference"],
        "localhost:5000/serve-app:steps-2"
    );
    assert_eq!(shown["queue_position"], Value::Null);
    assert!(shown["duration_ms"].is_u64() && shown["ended_at"].is_string());
    let unknown = fixture
        .read("/v1/builds/id-00000000000000000000000000000000")
        .await;
    assert_eq!(unknown.0, StatusCode::NOT_FOUND);
    assert_eq!(
        fixture.read("/v1/builds/..%2f..").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_waiting_build_is_cancelled_at_once() {
    let fixture = Fixture::start(&[("OCIBUILD_MAX_BUILDS", "1")]).await;
    fixture.make_gate("gated");
    let running = fixture.build("gated").await;
    fixture.noted("gated.started").await;
    let waiting = fixture.build("ok").await;
    let path = format!("/v1/builds/{waiting}/cancel");
    let (status, body) = answer(fixture.post(&path).json(&json!({"reason": "a typo"}))).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let build: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(build["status"], "failed");
    let error = json!({"code": "cancelled", "message": "the build was cancelled: a typo"});
    assert_eq!(build["error"], error);
    assert_eq!(answer(fixture.post(&path)).await.0, StatusCode::CONFLICT);
    fixture.open_gate("gated").await;
    fixture.reach(&running, "completed").await;
    assert_eq!(fixture.state(&waiting).await, "failed");
    let log = fixture.log(&waiting).await;
    assert!(log.contains("the build was cancelled: a typo"), "{log}");
}

#[tokio::test]
async fn a_running_build_is_cancelled_with_all_it_started() {
    let fixture = Fixture::start(&[]).await;
    let id = fixture.build("tree").await;
    let started = fixture.noted("tree.started").await;
    let processes: Vec<_> = started.split_whitespace().collect();
    assert_eq!(processes.len(), 3);
    assert!(processes.iter().all(|pid| is_alive(pid)));
    let path = format!("/v1/builds/{id}/cancel");
    let (status, body) = answer(fixture.post(&path)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let gone = || !processes.iter().any(|pid| is_alive(pid));
    within("the processes to end", CANCEL_LIMIT, gone).await;
    fixture.reach(&id, "failed").await;
    assert_eq!(fixture.shown(&id).await["error"]["code"], "cancelled");
    let two_lines = json!({"reason": "a\nb"});
    let (status, _) = answer(fixture.post(&path).json(&two_lines)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_build_is_built_again_as_it_was() {
    let fixture = Fixture::start(&[]).await;
    let build = fixture.submit(&empty_build("shows")).await;
    let first = id(&build);
    fixture.reach(&first, "completed").await;
    let spec: Value = serde_json::from_str(&fixture.noted("spec").await).unwrap();
    fixture.forget("spec");
    let (status, body) = answer(fixture.post(&format!("/v1/builds/{first}/retry"))).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let again: Value = serde_json::from_str(&body).unwrap();
    let second = id(&again);
    assert_ne!(first, second);
    fixture.reach(&second, "completed").await;
    let mut again: Value = serde_json::from_str(&fixture.noted("spec").await).unwrap();
    for own in ["task", "scratch"] {
        again[own] = spec[own].clone();
    }
    assert_eq!(again, spec);

    fixture.make_gate("gated");
    let running = fixture.build("gated").await;
    let (status, _) = answer(fixture.post(&format!("/v1/builds/{running}/retry"))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    fixture.open_gate("gated").await;
    fixture.reach(&running, "completed").await;
}

#[tokio::test]
async fn an_image_is_pushed_again_without_being_built() {
    let fixture = Fixture::start(&[]).await;
    let first = fixture.build("ok").await;
    fixture.reach(&first, "completed").await;
    let path = format!("/v1/builds/{first}/push");
    let names = json!({"destinations": ["localhost:5000/serve-app:shows"]});
    let (status, body) = answer(fixture.post(&path).json(&names)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let pushed = id(&serde_json::from_str(&body).unwrap());
    fixture.reach(&pushed, "completed").await;
    let spec: Value = serde_json::from_str(&fixture.noted("spec").await).unwrap();
    let reference = format!("localhost:5000/serve-app:ok@{DIGEST}");
    assert_eq!(
        spec["source"],
        json!({"kind": "image", "reference": reference})
    );
    assert_eq!(
        spec["destinations"][0]["reference"],
        "localhost:5000/serve-app:shows"
    );
    assert_eq!(spec["destinations"][0]["plain_http"], true);

    let failed = fixture.build("fails").await;
    fixture.reach(&failed, "failed").await;
    let (status, _) = answer(fixture.post(&format!("/v1/builds/{failed}/push"))).await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_push_that_half_worked_fails_and_lists_what_is_there() {
    let fixture = Fixture::start(&[]).await;
    let id = fixture.build("half").await;
    fixture.reach(&id, "failed").await;
    let shown = fixture.shown(&id).await;
    assert_eq!(shown["error"]["code"], "registry");
    assert_eq!(
        shown["images"][0]["reference"],
        "localhost:5000/serve-app:half"
    );
    assert_eq!(shown["digest"], Value::Null);
}

#[tokio::test]
async fn a_build_may_ask_for_less_time_and_memory() {
    let fixture = Fixture::start(&[]).await;
    let mut hurried = empty_build("hangs");
    hurried["timeout_seconds"] = json!(1);
    let mut small = empty_build("eats");
    small["limits"] = json!({"memory_bytes": 100_000_000});
    let hurried = id(&fixture.submit(&hurried).await);
    let small = id(&fixture.submit(&small).await);
    fixture.reach(&hurried, "failed").await;
    fixture.reach(&small, "failed").await;
    let error = &fixture.shown(&hurried).await["error"];
    assert_eq!(error["code"], "timeout");
    assert_eq!(
        error["message"],
        "the build took longer than 1 s and was stopped"
    );
    let error = &fixture.shown(&small).await["error"];
    assert_eq!(error["code"], "out_of_memory");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("more than the 100000000 that it may"),
        "{message}"
    );
}

#[tokio::test]
async fn the_service_may_allow_less_memory_than_a_build_takes() {
    let fixture = Fixture::start(&[("OCIBUILD_BUILD_MEMORY", "100M")]).await;
    let greedy = fixture.build("eats").await;
    let modest = fixture.build("ok").await;
    fixture.reach(&greedy, "failed").await;
    fixture.reach(&modest, "completed").await;
    assert_eq!(
        fixture.shown(&greedy).await["error"]["code"],
        "out_of_memory"
    );
    let scratch = fixture.folder.path().join("data/build_artifacts");
    until("the folders of builds to be gone", || {
        std::fs::read_dir(&scratch).unwrap().count() == 0
    })
    .await;
}
