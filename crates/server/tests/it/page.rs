//! The page without JavaScript, as HTTP: what it shows, to whom, and what its forms do.

use std::time::Duration;

use ocibuild_store::testing::new_task;
use ocibuild_store::{
    BuildParams, End, FailureCode, Lease, NewTask, Outcome, Progress, Pushed, SqliteStore, Step,
    StepState, TaskStore,
};
use reqwest::{StatusCode, header};

use crate::fixture::{COMMIT, DIGEST, Fixture, answer, form, task_id};

const HOSTILE: &str = "<script>window.ran=1</script>\"'><img src=x onerror=window.ran=1>";
const LEASE: Duration = Duration::from_secs(600);

/// The builds that [`fill`] makes.
pub(crate) struct Builds {
    pub(crate) hostile: String,
    pub(crate) running: String,
}

/// Fills the table with builds of every kind, one of them with hostile texts everywhere.
pub(crate) async fn fill(fixture: &mut Fixture) -> Builds {
    fixture.stop().await;
    let path = fixture.folder.path().join("data/tasks.db");
    let store = SqliteStore::open(&path).await.unwrap();
    for (app, tag) in [
        ("web", "v1.4.1"),
        ("worker", "2026-11-25"),
        ("web", "v1.4.2"),
    ] {
        let task = NewTask {
            app_name: app.to_owned(),
            ..new_task(tag)
        };
        let lease = begin(&store, &task).await;
        record(&store, &lease, &task, done_steps(), "#9 exporting\n").await;
        let end = End::Completed {
            digest: DIGEST.to_owned(),
        };
        finish(&store, &lease, end).await;
    }
    let hostile = hostile(&store).await;
    let task = NewTask {
        app_name: "api".to_owned(),
        ..new_task("feature-streaming-logs")
    };
    let running = task.id.to_string();
    let lease = begin(&store, &task).await;
    let mut steps = done_steps();
    steps.push(step(
        5,
        "[stage 2/2] RUN cargo build --release",
        StepState::Running,
        9200,
        None,
    ));
    let log = "#5 | \u{1b}[1m\u{1b}[32m   Compiling\u{1b}[0m serde v1.0.228\n#5 | <script>\n";
    record(&store, &lease, &task, steps, &log.repeat(40)).await;
    fixture.start_again().await;
    Builds { hostile, running }
}

async fn hostile(store: &SqliteStore) -> String {
    let task = NewTask {
        app_name: HOSTILE.to_owned(),
        image_tag: HOSTILE.to_owned(),
        params: BuildParams {
            git_repo: "javascript:window.ran=1//".to_owned(),
            branch: HOSTILE.to_owned(),
            app_dir: HOSTILE.to_owned(),
            docker_file_path: HOSTILE.to_owned(),
        },
        ..new_task("")
    };
    let lease = begin(store, &task).await;
    let mut steps = done_steps();
    steps.push(Step {
        error: Some(HOSTILE.to_owned()),
        layer: Some(HOSTILE.to_owned()),
        ..step(5, HOSTILE, StepState::Failed, 9200, Some(740))
    });
    record(
        store,
        &lease,
        &task,
        steps,
        &format!("#5 | {HOSTILE}</pre>\n"),
    )
    .await;
    let end = End::Failed {
        code: FailureCode::Command,
        reason: HOSTILE.to_owned(),
    };
    finish(store, &lease, end).await;
    task.id.to_string()
}

async fn begin(store: &SqliteStore, task: &NewTask) -> Lease {
    store.enqueue(task).await.unwrap();
    let claim = store
        .claim("builder-7d9f/other", LEASE, None)
        .await
        .unwrap();
    claim.unwrap().lease
}

async fn record(store: &SqliteStore, lease: &Lease, task: &NewTask, steps: Vec<Step>, log: &str) {
    let progress = Progress {
        offset: task.log.len() as u64,
        log: log.as_bytes().to_vec(),
        steps,
        commit: Some(COMMIT.to_owned()),
    };
    store.record(lease, &progress).await.unwrap();
}

async fn finish(store: &SqliteStore, lease: &Lease, end: End) {
    let pushed = Pushed {
        reference: "localhost:5000/serve-app:<b>".to_owned(),
        digest: DIGEST.to_owned(),
    };
    let outcome = Outcome {
        end,
        commit: Some(COMMIT.to_owned()),
        pushed: vec![pushed],
    };
    store.finish(lease, &outcome).await.unwrap();
}

fn step(number: u32, name: &str, state: StepState, begin_millis: u64, millis: Option<u64>) -> Step {
    Step {
        number,
        name: name.to_owned(),
        state,
        begin_millis,
        millis,
        layer: None,
        layer_size: None,
        error: None,
    }
}

fn done_steps() -> Vec<Step> {
    vec![
        step(
            1,
            "[internal] load base image rust:1.95-slim",
            StepState::Done,
            40,
            Some(3100),
        ),
        step(
            2,
            "[stage 1/2] WORKDIR /src",
            StepState::Cached,
            3150,
            Some(2),
        ),
        Step {
            layer_size: Some(48_311),
            ..step(3, "[stage 1/2] COPY . .", StepState::Done, 3160, Some(410))
        },
        Step {
            layer_size: Some(31_700_000),
            ..step(
                4,
                "[stage 1/2] RUN apt-get update && apt-get install -y pkg-config",
                StepState::Done,
                3600,
                Some(5600),
            )
        },
    ]
}

#[tokio::test]
async fn the_list_shows_filters_and_turns_pages() {
    let fixture = Fixture::start(&[]).await;
    let (status, empty) = fixture.read("/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(empty.contains("No builds here."), "{empty}");
    let first = fixture.build("ok-1").await;
    fixture.reach(&first, "completed").await;
    let second = fixture.build("fails").await;
    fixture.reach(&second, "failed").await;

    let (_, both) = fixture.read("/").await;
    let place = |id: &str| both.find(&format!("href=\"builds/{id}\"")).unwrap();
    assert!(place(&second) < place(&first), "the newest is first");
    assert!(both.contains(&COMMIT[..10]) && both.contains("0 running, 0 waiting"));
    for (query, shows_first, shows_second) in [
        ("?status=completed", true, false),
        ("?status=failed&app_name=serve", false, true),
        ("?image_tag=ok-1", true, false),
        ("?app_name=other", false, false),
        ("?status=&app_name=&image_tag=", true, true),
    ] {
        let (_, page) = fixture.read(&format!("/{query}")).await;
        let shows = (page.contains(&first), page.contains(&second));
        assert_eq!(shows, (shows_first, shows_second), "{query}");
    }

    let (_, page) = fixture.read("/?limit=1").await;
    assert!(page.contains(&second) && !page.contains(&first));
    let (before, _) = page.split_once("\">Older builds").unwrap();
    let (_, next) = before.rsplit_once("href=\"./").unwrap();
    let (_, page) = fixture
        .read(&format!("/{}", next.replace("&amp;", "&")))
        .await;
    assert!(!page.contains(&second) && page.contains(&first));

    let (status, page) = fixture.read("/?status=%3Cb%3E").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(page.contains("<h1>Not understood</h1>") && !page.contains("<b>"));
}

#[tokio::test]
async fn a_build_is_told_without_scripts() {
    let fixture = Fixture::start(&[]).await;
    let id = fixture.build("ok").await;
    fixture.reach(&id, "completed").await;
    let response = fixture.get(&format!("/builds/{id}")).send().await.unwrap();
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY].clone();
    let policy = policy.to_str().unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
    assert_eq!(
        response.headers()[header::X_CONTENT_TYPE_OPTIONS],
        "nosniff"
    );
    assert_eq!(response.headers()[header::REFERRER_POLICY], "same-origin");
    let page = response.text().await.unwrap();
    for part in [
        COMMIT,
        DIGEST,
        "<a href=\"https://github.com/org/repo\"",
        "[stage 1/1] COPY . .",
        "cached",
        "#1 CACHED\n",
        "Build completed in ",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    for file in ["page.css", "list.js", "build.js", "icon.svg"] {
        let (status, _) = fixture.read(&format!("/assets/{file}")).await;
        assert_eq!(status, StatusCode::OK, "{file}");
    }
}

#[tokio::test]
async fn texts_are_escaped() {
    let mut fixture = Fixture::start(&[]).await;
    let builds = fill(&mut fixture).await;
    for path in ["/".to_owned(), format!("/builds/{}", builds.hostile)] {
        let (status, page) = fixture.read(&path).await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("&lt;script&gt;window.ran"), "{page}");
        for wrong in [
            "<script>",
            "<img src=x",
            "href=\"javascript:",
            "<b>",
            "</pre>\n<",
        ] {
            assert!(!page.contains(wrong), "{wrong} in {page}");
        }
    }
}

#[tokio::test]
async fn a_log_is_shown_without_colours() {
    let mut fixture = Fixture::start(&[]).await;
    let builds = fill(&mut fixture).await;
    let (_, page) = fixture.read(&format!("/builds/{}", builds.running)).await;
    assert!(
        page.contains("#5 |    Compiling serde v1.0.228\n"),
        "{page}"
    );
    assert!(page.contains("data-live=\"true\"") && page.contains("Cancel"));
}

#[tokio::test]
async fn forms_cancel_and_build_again() {
    let fixture = Fixture::start(&[]).await;
    fixture.make_gate("gated");
    let id = fixture.build("gated").await;
    fixture.noted("gated.started").await;
    let early = fixture.post(&format!("/builds/{id}/retry"));
    let (status, page) = answer(early).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(page.contains("The build is not over"), "{page}");

    let cancel = || fixture.post(&format!("/builds/{id}/cancel"));
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        let (status, page) = answer(cancel().header(name, value)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{name}: {value}");
        assert!(page.contains("href=\"../.././\""), "{page}");
    }
    assert_eq!(fixture.state(&id).await, "running");

    let own = cancel().header("sec-fetch-site", "same-origin");
    let response = own.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()[header::LOCATION], format!("../{id}"));
    fixture.reach(&id, "failed").await;
    let (_, page) = fixture.read(&format!("/builds/{id}")).await;
    assert!(page.contains("the build was cancelled"), "{page}");
    let late = cancel().send().await.unwrap();
    assert_eq!(late.status(), StatusCode::SEE_OTHER);

    let retry = fixture.post(&format!("/builds/{id}/retry"));
    let own = retry
        .header("origin", fixture.url(""))
        .send()
        .await
        .unwrap();
    assert_eq!(own.status(), StatusCode::SEE_OTHER);
    let location = own.headers()[header::LOCATION].to_str().unwrap();
    let again = location.strip_prefix("../").unwrap();
    assert_ne!(again, id);
    fixture.open_gate("gated").await;
    fixture.reach(again, "completed").await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let fixture = Fixture::start(&[]).await;
    let unknown = "/builds/id-00000000000000000000000000000000";
    for path in [unknown, "/builds/%3Cscript%3E", "/assets/..%2Fpage.css"] {
        let (status, page) = fixture.read(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(page.contains("<h1>Not found</h1>"), "{page}");
        assert!(page.contains("href=\"../assets/page.css\""), "{page}");
    }
    let post = fixture.post(&format!("{unknown}/cancel"));
    assert_eq!(answer(post).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_tenant_sees_and_ends_its_own_builds_only() {
    let vars = [("OCIBUILD_TOKENS", "one:first,two:second")];
    let fixture = Fixture::start(&vars).await;
    assert_eq!(fixture.read("/").await.0, StatusCode::UNAUTHORIZED);
    let form = form("ok");
    let own = fixture.post("/build_with_dockerfile").form(&form);
    let (_, body) = answer(own.bearer_auth("first")).await;
    let id = task_id(&body);
    let path = format!("/builds/{id}");
    for (token, sees) in [("first", true), ("second", false)] {
        let list = fixture.get("/").basic_auth("browser", Some(token));
        assert_eq!(answer(list).await.1.contains(&id), sees, "{token}");
        let build = fixture.get(&path).basic_auth("browser", Some(token));
        let status = answer(build).await.0;
        assert_eq!(status == StatusCode::OK, sees, "{token}: {status}");
    }
    let cancel = fixture.post(&format!("{path}/cancel"));
    let (status, _) = answer(cancel.bearer_auth("second")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
