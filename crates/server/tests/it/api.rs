//! The answers that Darwin's clients were written against, byte for byte.

use reqwest::StatusCode;
use reqwest::multipart::{Form, Part};

use crate::fixture::{Fixture, answer, form, task_id};

fn id_is_valid(id: &str) -> bool {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    id.strip_prefix("id-")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(hex))
}

#[tokio::test]
async fn both_forms_queue_a_build() {
    let fixture = Fixture::start(&[]).await;
    let multipart = Form::new()
        .text("app_name", "serve")
        .text("image_tag", "ok-2")
        .text("git_repo", "https://github.com/org/repo")
        .text("branch", "");
    let requests = [
        fixture.post("/build_with_dockerfile").form(&form("ok-1")),
        fixture.post("/build_with_dockerfile").multipart(multipart),
    ];
    for request in requests {
        let (status, body) = answer(request).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let id = task_id(&body);
        assert!(id_is_valid(&id), "{id}");
        let expected = format!(
            r#"{{"status":"SUCCESS","task_id":"{id}","logs_url":"http://builder.example/static/{id}.log","message":"task has been added to queue"}}"#
        );
        assert_eq!(body, expected);
        let logs = format!(
            r#"{{"status":"SUCCESS","logs_url":"http://builder.example/static/{id}.log","message":""}}"#
        );
        assert_eq!(
            fixture.read(&format!("/task/logs?task_id={id}")).await,
            (StatusCode::OK, logs)
        );
        fixture.reach(&id, "completed").await;
        let state = r#"{"status":"SUCCESS","build_status":"completed","message":""}"#;
        let (_, body) = fixture.read(&format!("/task/status?task_id={id}")).await;
        assert_eq!(body, state);
    }
}

#[tokio::test]
async fn the_list_has_five_keys_for_each_task() {
    let fixture = Fixture::start(&[]).await;
    let empty = r#"{"status":"SUCCESS","data":[],"message":""}"#;
    assert_eq!(
        fixture.read("/task").await,
        (StatusCode::OK, empty.to_owned())
    );
    let first = fixture.build("ok-1").await;
    fixture.reach(&first, "completed").await;
    let second = fixture.build("fails").await;
    fixture.reach(&second, "failed").await;
    let task = |id: &str, tag: &str, state: &str| {
        format!(
            r#"{{"task_id":"{id}","app_name":"serve","image_tag":"{tag}","logs_url":"http://builder.example/static/{id}.log","status":"{state}"}}"#
        )
    };
    let (first, second) = (
        task(&first, "ok-1", "completed"),
        task(&second, "fails", "failed"),
    );
    let expected = format!(r#"{{"status":"SUCCESS","data":[{first},{second}],"message":""}}"#);
    assert_eq!(fixture.read("/task").await.1, expected);
}

#[tokio::test]
async fn unknown_tasks_are_failed_with_status_200() {
    let fixture = Fixture::start(&[]).await;
    for id in [
        "id-00000000000000000000000000000000",
        "",
        "nonsense",
        "..%2F..%2Fetc%2Fpasswd",
    ] {
        let state = r#"{"status":"FAILED","build_status":"","message":"Task does not exist"}"#;
        let found = fixture.read(&format!("/task/status?task_id={id}")).await;
        assert_eq!(found, (StatusCode::OK, state.to_owned()));
        let logs = r#"{"status":"FAILED","logs_url":"","message":"Task does not exist"}"#;
        let found = fixture.read(&format!("/task/logs?task_id={id}")).await;
        assert_eq!(found, (StatusCode::OK, logs.to_owned()));
    }
    for path in ["/task/status", "/task/logs?other=1"] {
        let missing = r#"{"detail":[{"type":"missing","loc":["query","task_id"],"msg":"Field required","input":null}]}"#;
        assert_eq!(
            fixture.read(path).await,
            (StatusCode::UNPROCESSABLE_ENTITY, missing.to_owned())
        );
    }
}

#[tokio::test]
async fn what_cannot_be_built_gets_no_task_id() {
    let fixture = Fixture::start(&[]).await;
    let missing = |field: &str| {
        format!(
            r#"{{"type":"missing","loc":["body","{field}"],"msg":"Field required","input":null}}"#
        )
    };
    let all = ["app_name", "image_tag", "git_repo"].map(missing).join(",");
    let everything = format!(r#"{{"detail":[{all}]}}"#);
    let json = serde_json::json!({"app_name": "serve", "image_tag": "t", "git_repo": "u"});
    let post = || fixture.post("/build_with_dockerfile");
    for request in [
        post(),
        post().json(&json),
        post().form(&[("app_name", ""), ("image_tag", ""), ("git_repo", "")]),
    ] {
        assert_eq!(
            answer(request).await,
            (StatusCode::UNPROCESSABLE_ENTITY, everything.clone())
        );
    }

    for (field, value) in [
        ("image_tag", "../../etc"),
        ("image_tag", "a/b"),
        ("app_name", "/app"),
        ("app_name", ".."),
        ("git_repo", "file:///etc"),
        ("git_repo", "--upload-pack=touch https://github.com/a/b"),
        ("git_repo", "https://user:hidden@github.com/a/b"),
        ("branch", "--upload-pack=touch"),
        ("branch", "a b"),
        ("app_dir", "../.."),
        ("app_dir", "/etc"),
    ] {
        let mut fields = form("ok");
        fields.retain(|(name, _)| *name != field);
        fields.push((field, value.to_owned()));
        let (status, body) = answer(post().form(&fields)).await;
        assert_eq!(
            status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{field}={value}: {body}"
        );
        let begin =
            format!(r#"{{"detail":[{{"type":"value_error","loc":["body","{field}"],"msg":"#);
        assert!(body.starts_with(&begin), "{body}");
        assert!(
            !body.contains("task_id") && !body.contains("hidden"),
            "{body}"
        );
    }
    assert!(fixture.read("/task").await.1.contains(r#""data":[]"#));
}

fn upload(dockerfile: Part) -> Form {
    let fields = form("shows").into_iter();
    fields
        .fold(Form::new(), |form, (name, value)| form.text(name, value))
        .part("dockerfile", dockerfile)
}

#[tokio::test]
async fn an_uploaded_dockerfile_reaches_the_build() {
    let fixture = Fixture::start(&[("OCIBUILD_MAX_DOCKERFILE", "1000")]).await;
    let post = || fixture.post("/build_with_dockerfile");
    let refused = [
        (Part::text("FROM scratch"), StatusCode::UNPROCESSABLE_ENTITY),
        (
            Part::text("").file_name("Dockerfile"),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            Part::bytes(vec![0xff; 10]).file_name("Dockerfile"),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            Part::bytes(vec![b'#'; 1001]).file_name("Dockerfile"),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (
            Part::bytes(vec![b'#'; 1 << 20]).file_name("Dockerfile"),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
    ];
    for (part, expected) in refused {
        let (status, body) = answer(post().multipart(upload(part))).await;
        assert_eq!(status, expected, "{body}");
        assert!(
            body.starts_with(r#"{"detail":"#) && !body.contains("task_id"),
            "{body}"
        );
    }
    let broken = post()
        .header("content-type", "multipart/form-data; boundary=x")
        .body("--x\r\nnonsense");
    assert_eq!(answer(broken).await.0, StatusCode::BAD_REQUEST);

    let text = "FROM scratch\nLABEL a=\"ü\"\n";
    let part = Part::text(text).file_name("anything.txt");
    let (_, body) = answer(post().multipart(upload(part))).await;
    fixture.reach(&task_id(&body), "completed").await;
    let spec: serde_json::Value = serde_json::from_str(&fixture.noted("spec").await).unwrap();
    assert_eq!(spec["dockerfile"]["text"], text);
}

#[tokio::test]
async fn other_requests_get_fastapis_answers() {
    let fixture = Fixture::start(&[]).await;
    let not_found = (
        StatusCode::NOT_FOUND,
        r#"{"detail":"Not Found"}"#.to_owned(),
    );
    for path in [
        "/nothing",
        "/static/",
        "/static/id-00000000000000000000000000000000.log",
        "/static/..%2ftasks.db",
        "/static/tasks.db",
        "/docs/nothing.js",
    ] {
        assert_eq!(fixture.read(path).await, not_found, "{path}");
    }
    let wrong = (
        StatusCode::METHOD_NOT_ALLOWED,
        r#"{"detail":"Method Not Allowed"}"#.to_owned(),
    );
    assert_eq!(fixture.read("/build_with_dockerfile").await, wrong);
    assert_eq!(answer(fixture.post("/task")).await, wrong);
    let slash = fixture.get("/task/?x=1").send().await.unwrap();
    assert_eq!(slash.status(), StatusCode::TEMPORARY_REDIRECT);
    let target = slash
        .url()
        .join(slash.headers()["location"].to_str().unwrap())
        .unwrap();
    assert_eq!(target.as_str(), fixture.url("/task?x=1"));
    for path in ["/health", "/healthcheck"] {
        let healthy = r#"{"status":"SUCCESS","message":"OK"}"#;
        assert_eq!(
            fixture.read(path).await,
            (StatusCode::OK, healthy.to_owned())
        );
    }
}

#[tokio::test]
async fn logs_are_text_in_whole_and_in_part() {
    let fixture = Fixture::start(&[]).await;
    let id = fixture.build("ok").await;
    fixture.reach(&id, "completed").await;
    let path = format!("/static/{id}.log");
    let whole = fixture.get(&path).send().await.unwrap();
    assert_eq!(whole.headers()["content-type"], "text/plain; charset=utf-8");
    let tag = whole.headers()["etag"].clone();
    let text = whole.text().await.unwrap();

    let part = fixture
        .get(&path)
        .header("range", "bytes=5-8")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    let range = format!("bytes 5-8/{}", text.len());
    assert_eq!(part.headers()["content-range"], range.as_str());
    assert_eq!(part.text().await.unwrap(), text[5..9]);
    let beyond = fixture
        .get(&path)
        .header("range", format!("bytes={}-", text.len()));
    assert_eq!(
        answer(beyond).await,
        (StatusCode::RANGE_NOT_SATISFIABLE, String::new())
    );
    let known = fixture.get(&path).header("if-none-match", tag);
    assert_eq!(answer(known).await.0, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn pages_need_nothing_from_elsewhere() {
    let fixture = Fixture::start(&[("ROOT_PATH", "/builder")]).await;
    for prefix in ["", "/builder"] {
        let (status, page) = fixture.read(&format!("{prefix}/")).await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            !page.contains("http://") && !page.contains("https://"),
            "no external resources"
        );
        let docs = fixture.get(&format!("{prefix}/docs")).send().await.unwrap();
        assert_eq!(docs.headers()["location"], "docs/");
        assert_eq!(
            fixture.read(&format!("{prefix}/docs/")).await.0,
            StatusCode::OK
        );
        let (_, script) = fixture
            .read(&format!("{prefix}/docs/swagger-initializer.js"))
            .await;
        assert!(
            script.contains("../openapi.json") && !script.contains("petstore"),
            "{script}"
        );
        assert_eq!(
            fixture
                .read(&format!("{prefix}/docs/swagger-ui.css"))
                .await
                .0,
            StatusCode::OK
        );
        let (_, description) = fixture.read(&format!("{prefix}/openapi.json")).await;
        let description: serde_json::Value = serde_json::from_str(&description).unwrap();
        assert_eq!(description["servers"][0]["url"], "/builder");
        assert!(description["paths"]["/v1/builds"]["post"].is_object());
        let (status, _) = fixture.read(&format!("{prefix}/task")).await;
        assert_eq!(status, StatusCode::OK);
    }
}
