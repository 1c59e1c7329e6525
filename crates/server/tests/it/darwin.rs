//! A start against the database of Darwin's builder, with its table and its rows in it.

use std::io::Write;
use std::process::{Command, Stdio};

use ocibuild_store::testing::MariaDb;
use serde_json::json;

use crate::fixture::{Fixture, answer};

/// The table as Darwin's builder makes it, and what it has left there.
const DARWIN: &str = r#"
CREATE DATABASE mlp_serve CHARACTER SET utf8mb4;
USE mlp_serve;
CREATE TABLE darwin_image_builder (
    task_id VARCHAR(255) NOT NULL PRIMARY KEY,
    app_name VARCHAR(255) NOT NULL,
    image_tag VARCHAR(255) NOT NULL,
    logs_url LONGTEXT,
    build_params JSON,
    status VARCHAR(9) NOT NULL DEFAULT 'waiting' COMMENT 'waiting, running, completed, failed',
    created_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    updated_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    KEY idx_darwin_imag_status_2f380b (status),
    KEY idx_darwin_imag_created_9fb1d0 (created_at)
) CHARACTER SET utf8mb4;
INSERT INTO darwin_image_builder (task_id, app_name, image_tag, logs_url, build_params, status) VALUES
  ('id-00000000000000000000000000000001', 'serve', 'old', NULL, NULL, 'completed'),
  ('id-00000000000000000000000000000002', 'serve', 'bad', 'http://old/static/id-00000000000000000000000000000002.log',
   '{"git_repo": "https://github.com/a/b", "branch": "main", "app_dir": "", "docker_file_path": ""}', 'failed'),
  ('id-00000000000000000000000000000003', 'serve', 'ok-running', NULL,
   '{"git_repo": "https://github.com/a/b", "branch": "main", "app_dir": "", "docker_file_path": ""}', 'running'),
  ('id-00000000000000000000000000000004', 'serve', 'ok-waiting', NULL,
   '{"git_repo": "https://github.com/a/b", "branch": "", "app_dir": "", "docker_file_path": ""}', 'waiting'),
  ('id-00000000000000000000000000000005', 'serve', 'ok-lost', NULL,
   '{"git_repo": "https://github.com/a/b", "docker_file_path": "s3://bucket/Dockerfile"}', 'waiting');
"#;

fn run_sql(database: &MariaDb, text: &str) -> String {
    let port = database.settings("").port;
    let mut client = Command::new("mariadb")
        .args([
            "--no-defaults",
            "--protocol=tcp",
            "--host=127.0.0.1",
            "--user=root",
        ])
        .args([
            "--skip-ssl",
            "--batch",
            "--skip-column-names",
            &format!("--port={port}"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    client
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn id(digit: u32) -> String {
    format!("id-{digit:032}")
}

#[tokio::test(flavor = "multi_thread")]
async fn its_tasks_are_shown_and_built() {
    let database = MariaDb::start().unwrap();
    run_sql(&database, DARWIN);
    let definition = |database: &MariaDb| {
        run_sql(
            database,
            "SHOW CREATE TABLE mlp_serve.darwin_image_builder;",
        )
    };
    let before = definition(&database);
    let fixture = Fixture::start_on(&database, &[("MYSQL_DATABASE", "mlp_serve")]).await;
    fixture.reach(&id(4), "completed").await;
    fixture.reach(&id(5), "failed").await;
    // Darwin's builder may be at work on it still; who knows better ends it.
    assert_eq!(fixture.state(&id(3)).await, "running");
    let (status, body) = answer(fixture.post(&format!("/v1/builds/{}/cancel", id(3)))).await;
    assert!(status.is_success(), "{status} {body}");
    fixture.reach(&id(3), "failed").await;
    let list = fixture.json("/task").await;
    let tasks = list["data"].as_array().unwrap();
    let listed = |digit: u32| {
        tasks
            .iter()
            .find(|task| task["task_id"] == id(digit))
            .unwrap()
            .clone()
    };
    assert_eq!(tasks.len(), 5);
    let old = json!({
        "task_id": id(1), "app_name": "serve", "image_tag": "old", "logs_url": "",
        "status": "completed",
    });
    assert_eq!(listed(1), old);
    assert_eq!(
        listed(2)["logs_url"],
        format!("http://old/static/{}.log", id(2))
    );
    let logs = fixture.json(&format!("/task/logs?task_id={}", id(1))).await;
    assert_eq!(
        logs,
        json!({"status": "SUCCESS", "logs_url": "", "message": ""})
    );
    assert!(fixture.log(&id(4)).await.contains("Build completed in "));
    let error = &fixture.shown(&id(5)).await["error"];
    assert!(
        error["message"].as_str().unwrap().contains("Dockerfile"),
        "{error}"
    );
    fixture.json("/v1/builds").await;
    let page = fixture.read("/").await;
    assert_eq!(page.0, reqwest::StatusCode::OK);
    assert_eq!(definition(&database), before, "its table is left as it was");
}
