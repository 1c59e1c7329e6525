//! A table with ten thousand tasks in it.

use std::time::Duration;

use futures::{StreamExt, stream};
use ocibuild_store::testing::new_task;
use ocibuild_store::{SqliteStore, TaskStore};
use reqwest::StatusCode;

use crate::fixture::Fixture;

const TASKS: usize = 10_000;
/// No answer may take so long by far; it is the patience of clients, not a measure.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_ten_thousand_tasks_are_answered() {
    let mut fixture = Fixture::prepare(&[("OCIBUILD_MAX_BUILDS", "1")]);
    let data = fixture.folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let store = SqliteStore::open(&data.join("tasks.db")).await.unwrap();
    stream::iter(0..TASKS)
        .for_each_concurrent(8, |_| async {
            store.enqueue(&new_task("gated")).await.unwrap()
        })
        .await;
    fixture.make_gate("gated");
    fixture.start_again().await;
    let read = async |path: &str| {
        let answer = tokio::time::timeout(LIMIT, fixture.read(path)).await;
        let (status, body) = answer.expect("an answer in time");
        assert_eq!(status, StatusCode::OK, "{path}");
        body
    };
    let list = read("/task").await;
    assert_eq!(list.matches(r#"{"task_id":"id-"#).count(), TASKS);
    // Darwin's fields and nothing more: some 200 bytes for a task.
    assert!(list.len() < TASKS * 300, "{} bytes", list.len());
    let page = fixture.json("/v1/builds?limit=1000").await;
    assert_eq!(page["builds"].as_array().unwrap().len(), 1000);
    assert!(page["next"].is_string());
    let first_page = read("/").await;
    assert!(first_page.len() < 1 << 20, "{} bytes", first_page.len());
    let last = fixture.json("/v1/builds?limit=1").await;
    let position = fixture
        .shown(last["builds"][0]["id"].as_str().unwrap())
        .await;
    assert!(
        position["queue_position"].as_u64().unwrap() > 9_000,
        "{position}"
    );
}
