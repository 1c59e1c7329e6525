//! Builds from the queue to their end, whatever their process does.

use std::time::Duration;

use ocibuild_store::testing::new_task;
use ocibuild_store::{SqliteStore, TaskStore};

use crate::fixture::{COMMIT, DIGEST, Fixture, answer, is_alive, task_id, until};

#[tokio::test]
async fn a_log_grows_while_the_build_runs() {
    let fixture = Fixture::start(&[]).await;
    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    fixture.noted("gated.started").await;
    fixture.reach(&id, "running").await;
    let log_file = fixture.folder.path().join(format!("data/logs/{id}.log"));
    let text = || std::fs::read_to_string(&log_file).unwrap();
    until("the line before the gate", || {
        text().contains("#1 | before the gate\n")
    })
    .await;
    let so_far = fixture.log(&id).await;
    assert!(!so_far.contains("behind the gate"), "{so_far}");
    fixture.open_gate("gated").await;
    fixture.reach(&id, "completed").await;
    let whole = fixture.log(&id).await;
    assert!(
        whole.starts_with(&so_far) && whole.contains("#1 | behind the gate\n"),
        "{whole}"
    );
}

#[tokio::test]
async fn a_log_tells_everything_about_a_build() {
    let fixture = Fixture::start(&[]).await;
    let id = fixture.build("ok").await;
    fixture.reach(&id, "completed").await;
    let log = fixture.log(&id).await;
    let (body, last) = log.trim_end().rsplit_once('\n').unwrap();
    let expected = format!(
        "Task {id} waits for a free builder\n\
         <----- Input Parameters ----->\n\
         Application: serve\n\
         Repository:  https://github.com/org/repo\n\
         Branch:      main\n\
         Directory:   (root)\n\
         Image:       localhost:5000/serve-app:ok\n\
         Commit:      {COMMIT}\n\
         <----- Dockerfile contents (Dockerfile) ----->\n   1 | FROM scratch\n   2 | COPY . .\n\
         <----- Logs ----->\n\
         #1 [stage 1/1] COPY . .\n\
         #1 CACHED\n\
         Pushed localhost:5000/serve-app:ok@{DIGEST}"
    );
    assert_eq!(body, expected);
    assert!(
        last.starts_with("Build completed in ") && last.ends_with(DIGEST),
        "{last}"
    );
    let scratch = fixture.folder.path().join("data/build_artifacts");
    assert_eq!(
        std::fs::read_dir(scratch).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

#[tokio::test]
async fn every_failure_says_why_in_log_and_table() {
    let fixture = Fixture::start(&[]).await;
    for (tag, reason) in [
        ("fails", "the command `make` ended with status 2"),
        (
            "crashes",
            "the build process ended with status 101 and without a result: \
             thread 'main' panicked at the disco",
        ),
        (
            "killed",
            "the build process was killed (signal 9), and not because memory ran out",
        ),
        (
            "silent",
            "the build process ended with status 0 and without a result",
        ),
    ] {
        let id = fixture.build(tag).await;
        fixture.reach(&id, "failed").await;
        let log = fixture.log(&id).await;
        let last = log.lines().last().unwrap();
        assert!(
            last.starts_with("Build failed after ") && last.ends_with(reason),
            "{last}"
        );
        let store = SqliteStore::open(&fixture.folder.path().join("data/tasks.db"))
            .await
            .unwrap();
        let task = store.get(&id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(task.error.as_deref(), Some(reason));
        assert_eq!((task.commit.as_deref(), task.digest), (Some(COMMIT), None));
    }
}

#[tokio::test]
async fn without_a_registry_a_build_fails_before_it_begins() {
    // Google is no target of a local deployment.
    let fixture = Fixture::start(&[("LOCAL_REGISTRY", ""), ("GCP_PROJECT_ID", "project")]).await;
    let id = fixture.build("ok").await;
    fixture.reach(&id, "failed").await;
    let log = fixture.log(&id).await;
    assert!(
        log.contains("no registry is configured to push to"),
        "{log}"
    );
}

#[tokio::test]
async fn a_build_that_takes_too_long_is_killed_with_all_it_started() {
    let fixture = Fixture::start(&[("OCIBUILD_BUILD_TIMEOUT", "1")]).await;
    let id = fixture.build("hangs").await;
    let started = fixture.noted("hangs.started").await;
    let processes: Vec<_> = started.split_whitespace().collect();
    assert_eq!(processes.len(), 2);
    fixture.reach(&id, "failed").await;
    until("the processes to end", || {
        !processes.iter().any(|pid| is_alive(pid))
    })
    .await;
    let log = fixture.log(&id).await;
    assert!(
        log.trim_end()
            .ends_with("the build took longer than 1 s and was stopped"),
        "{log}"
    );
}

#[tokio::test]
async fn an_image_that_is_pushed_is_a_success_even_if_its_build_does_not_end() {
    let fixture = Fixture::start(&[("OCIBUILD_BUILD_TIMEOUT", "1")]).await;
    let id = fixture.build("lingers").await;
    fixture.reach(&id, "completed").await;
}

#[tokio::test]
async fn what_a_build_leaves_running_is_killed() {
    let fixture = Fixture::start(&[]).await;
    let id = fixture.build("leaves").await;
    fixture.reach(&id, "completed").await;
    let left = fixture.noted("leaves.left").await;
    until("the process to end", || !is_alive(&left)).await;
}

#[tokio::test]
async fn builds_run_in_order_and_not_too_many_at_once() {
    let fixture = Fixture::start(&[("OCIBUILD_MAX_BUILDS", "2")]).await;
    let tags = ["gated-1", "gated-2", "gated-3", "gated-4"];
    let mut ids = Vec::new();
    for tag in tags {
        fixture.make_gate(tag);
        ids.push(fixture.build(tag).await);
    }
    let started = |tag: &str| fixture.meet().join(format!("{tag}.started")).exists();
    fixture.noted("gated-1.started").await;
    fixture.noted("gated-2.started").await;
    assert_eq!(fixture.state(&ids[2]).await, "waiting");
    fixture.open_gate("gated-2").await;
    fixture.noted("gated-3.started").await;
    assert!(!started("gated-4"));
    assert_eq!(fixture.state(&ids[3]).await, "waiting");
    for tag in ["gated-1", "gated-3", "gated-4"] {
        fixture.open_gate(tag).await;
    }
    for id in &ids {
        fixture.reach(id, "completed").await;
    }
}

#[tokio::test]
async fn the_token_is_seen_by_the_build_alone() {
    let token = "ghp_0123456789secret";
    let fixture = Fixture::start(&[("GITHUB_TOKEN", token), ("MYSQL_PASSWORD", "hidden")]).await;
    let id = fixture.build("tells").await;
    fixture.reach(&id, "failed").await;
    assert_eq!(
        fixture.noted("token").await,
        token,
        "the build itself needs it"
    );
    let environment = fixture.noted("environment").await;
    assert!(
        !environment.contains(token) && !environment.contains("hidden"),
        "{environment}"
    );
    assert!(!fixture.noted("arguments").await.contains(token));
    let log = fixture.log(&id).await;
    assert!(!log.contains(token), "{log}");
    assert!(
        log.contains("#1 | cloning https://****@github.com/org/repo\n"),
        "{log}"
    );
    assert!(log.contains("fatal: ****\n"), "{log}");
    let store = SqliteStore::open(&fixture.folder.path().join("data/tasks.db"))
        .await
        .unwrap();
    let error = store
        .get(&id.parse().unwrap())
        .await
        .unwrap()
        .unwrap()
        .error
        .unwrap();
    assert_eq!(
        error,
        "could not read from https://****@github.com/org/repo"
    );
}

#[tokio::test]
async fn a_build_is_told_what_was_asked_for() {
    let vars = [
        ("GITHUB_TOKEN", "ghp_0123456789"),
        ("DOCKER_BUILD_PLATFORM", "linux/arm64"),
    ];
    let fixture = Fixture::start(&vars).await;
    let form = [
        ("app_name", "serve"),
        ("image_tag", "shows"),
        ("git_repo", "https://git.example/org/repo"),
        ("branch", "v1.0"),
        ("app_dir", "services/a"),
    ];
    let (_, body) = answer(fixture.post("/build_with_dockerfile").form(&form)).await;
    let id = task_id(&body);
    fixture.reach(&id, "completed").await;
    let spec: serde_json::Value = serde_json::from_str(&fixture.noted("spec").await).unwrap();
    let data = fixture.folder.path().join("data");
    let expected = serde_json::json!({
        "task": id,
        "source": {
            "kind": "git",
            "url": "https://git.example/org/repo",
            "reference": "v1.0",
            "subdir": "services/a",
            // The token is for GitHub alone.
            "token": null,
        },
        "dockerfile": {"path": "Dockerfile"},
        "args": {},
        "target": null,
        "platforms": ["linux/arm64"],
        "labels": {},
        "secrets": [],
        "cache_scope": null,
        "no_cache": false,
        "cache_from": [],
        "cache_to": [],
        "cache_all_steps": false,
        "store_max": null,
        "store_min_free": null,
        "output": {
            "compression": null, "compression_level": null, "force_compression": false,
            "media_types": "oci", "annotations": [],
        },
        "destinations": [{
            "reference": "localhost:5000/serve-app:shows",
            "plain_http": true,
            "auth": {"kind": "configured"},
        }],
        "registries": {
            "docker_config": null,
            "settings": null,
            "cloud": {},
            "plain_http": [],
            "aliases": [],
            "login": null,
        },
        "git": {"http_hosts": [], "hosts": [], "deny": "metadata", "ssh": null},
        "sandbox": null,
        "store": data.join("store"),
        "scratch": data.join("build_artifacts").join(&id),
    });
    assert_eq!(spec, expected);
}

#[tokio::test]
async fn a_shutdown_returns_the_task_and_the_next_start_builds_it() {
    let mut fixture = Fixture::start(&[]).await;
    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    let process = fixture.noted("gated.started").await;
    fixture.stop().await;
    assert!(!is_alive(&process), "the build was stopped");
    std::fs::remove_file(fixture.meet().join("gated.started")).unwrap();

    fixture.start_again().await;
    fixture.noted("gated.started").await;
    fixture.open_gate("gated").await;
    fixture.reach(&id, "completed").await;
    let log = fixture.log(&id).await;
    assert!(
        log.contains("The service is shutting down; this task waits again\n"),
        "{log}"
    );
}

#[tokio::test]
async fn a_task_whose_worker_died_is_built_again() {
    let mut fixture = Fixture::start(&[]).await;
    fixture.stop().await;
    let store = SqliteStore::open(&fixture.folder.path().join("data/tasks.db"))
        .await
        .unwrap();
    let task = new_task("ok");
    store.enqueue(&task).await.unwrap();
    store
        .claim("died", Duration::ZERO, None)
        .await
        .unwrap()
        .unwrap();

    fixture.start_again().await;
    fixture.reach(task.id.as_str(), "completed").await;
    assert!(
        fixture
            .log(task.id.as_str())
            .await
            .contains("Attempt:     2\n")
    );
}
