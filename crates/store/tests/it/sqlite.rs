use std::sync::Arc;

use ocibuild_store::testing::{check_restart, check_store, fill_for_restart, new_task};
use ocibuild_store::{SqliteStore, StoreError, TaskState, TaskStore};
use sqlx::sqlite::SqlitePool;

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("tasks.db"))
        .await
        .unwrap();
    check_store(Arc::new(store)).await;
}

#[tokio::test]
async fn keeps_everything_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let tasks = fill_for_restart(&SqliteStore::open(&file).await.unwrap()).await;
    check_restart(&SqliteStore::open(&file).await.unwrap(), &tasks).await;
}

#[tokio::test]
async fn names_the_file_that_cannot_be_opened() {
    let error = SqliteStore::open("/nowhere/tasks.db".as_ref())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot open the task database /nowhere/tasks.db"
    );
}

#[tokio::test]
async fn rows_of_others_do_not_hold_up_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let store = SqliteStore::open(&file).await.unwrap();
    let foreign = SqlitePool::connect(&format!("sqlite:{}", file.display()))
        .await
        .unwrap();
    for (id, params) in [
        ("not-an-id", "{}"),
        ("id-00000000000000000000000000000000", "{broken"),
    ] {
        sqlx::query(
            "INSERT INTO darwin_image_builder (task_id, app_name, image_tag, build_params)
             VALUES (?, 'app', 'tag', ?)",
        )
        .bind(id)
        .bind(params)
        .execute(&foreign)
        .await
        .unwrap();
    }
    let good = new_task("good");
    store.enqueue(&good).await.unwrap();
    let claim = store
        .claim("test", std::time::Duration::from_secs(60))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(claim.task.id, good.id);
    let listed: Vec<_> = store
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|task| task.id)
        .collect();
    assert_eq!(listed, [good.id]);
    let broken = "id-00000000000000000000000000000000".parse().unwrap();
    let error = store.get(&broken).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Corrupt {
                column: "build_params",
                ..
            }
        ),
        "{error}"
    );
    let states: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT status FROM darwin_image_builder WHERE task_id != ?")
            .bind(claim.task.id.as_str())
            .fetch_all(&foreign)
            .await
            .unwrap();
    assert_eq!(states, [TaskState::Failed.as_str()]);
}
