//! Tenants: each sees what is its own, everywhere, and the administrator sees all.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::fixture::{Fixture, answer, empty_build, form, id, task_id};

const TOKENS: (&str, &str) = (
    "OCIBUILD_TOKENS",
    "red:red-token,blue:blue-token,*:admin-token",
);

#[tokio::test]
async fn each_tenant_sees_its_own_and_the_administrator_all() {
    let fixture = Fixture::start(&[TOKENS]).await;
    let post = || fixture.post("/build_with_dockerfile").form(&form("ok"));
    let (_, body) = answer(post().bearer_auth("red-token")).await;
    let red = task_id(&body);
    let (_, body) = answer(post().basic_auth("anybody", Some("blue-token"))).await;
    let blue = task_id(&body);

    let read = async |token: &str, path: &str| answer(fixture.get(path).bearer_auth(token)).await;
    let listed = async |token: &str| {
        let (_, old) = read(token, "/task").await;
        let (_, new) = read(token, "/v1/builds").await;
        let has = |id: &str| {
            assert_eq!(old.contains(id), new.contains(id), "{old} {new}");
            old.contains(id)
        };
        (has(&red), has(&blue))
    };
    assert_eq!(listed("red-token").await, (true, false));
    assert_eq!(listed("blue-token").await, (false, true));
    assert_eq!(listed("admin-token").await, (true, true));

    // For red, blue's task does not exist.
    let none = "id-00000000000000000000000000000000";
    for path in [
        "/task/status?task_id=ID",
        "/task/logs?task_id=ID",
        "/static/ID.log",
        "/v1/builds/ID",
        "/v1/builds/ID/log",
        "/v1/builds/ID/events",
    ] {
        let foreign = read("red-token", &path.replace("ID", &blue)).await;
        let unknown = read("red-token", &path.replace("ID", none)).await;
        assert_eq!(foreign, unknown, "{path}");
        let own = read("blue-token", &path.replace("ID", &blue)).await;
        assert_ne!(own, unknown, "{path}");
        let (status, body) = answer(fixture.get(&path.replace("ID", &blue))).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}: {body}");
    }
    for verb in ["cancel", "retry", "push"] {
        let path = format!("/v1/builds/{blue}/{verb}");
        let (status, _) = answer(fixture.post(&path).bearer_auth("red-token")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{verb}");
        let (status, _) = answer(fixture.post(&path).bearer_auth("wrong")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{verb}");
    }
    for path in ["/livez", "/readyz", "/healthcheck", "/openapi.json"] {
        assert_eq!(
            fixture.read(path).await.0,
            StatusCode::OK,
            "{path} needs no token"
        );
    }
}

#[tokio::test]
async fn contexts_and_what_comes_of_a_build_stay_with_its_tenant() {
    let mut fixture = Fixture::start(&[TOKENS]).await;
    fixture.show("red-token");
    let (_, body) = answer(fixture.post("/v1/contexts").body("tar")).await;
    let context: Value = serde_json::from_str(&body).unwrap();
    let build = json!({
        "app_name": "serve", "image_tag": "ok",
        "context": {"type": "upload", "id": context["id"]},
    });
    let mine = id(&fixture.submit(&build).await);
    fixture.show("blue-token");
    let (status, body) = answer(fixture.post("/v1/builds").json(&build)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    let path = format!("/v1/contexts/{}", context["id"].as_str().unwrap());
    let more = fixture.patch(&path).header("Upload-Offset", "3").body("x");
    for request in [fixture.get(&path), more] {
        assert_eq!(answer(request).await.0, StatusCode::NOT_FOUND);
    }

    // What the administrator builds again for red is red's.
    fixture.show("admin-token");
    while fixture.state(&mine).await != "completed" {
        crate::fixture::pause().await;
    }
    let (status, body) = answer(fixture.post(&format!("/v1/builds/{mine}/retry"))).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let again: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(again["tenant"], "red");
    let of_nobody = fixture.submit(&empty_build("ok")).await;
    assert_eq!(of_nobody["tenant"], Value::Null);
    fixture.show("red-token");
    let (status, _) = fixture
        .read(&format!("/v1/builds/{}", id(&of_nobody)))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    fixture.shown(&id(&again)).await;
}
