use std::sync::Arc;

use ocibuild_store::testing::{check_restart, check_store, fill_for_restart, new_task};
use ocibuild_store::{
    Order, PageQuery, Progress, SqliteStore, StoreError, TaskId, TaskState, TaskStore,
};
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
        .claim("test", std::time::Duration::from_secs(60), None)
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
    assert_eq!(listed, std::slice::from_ref(&good.id));
    pages_go_on_behind_them(&store, &good.id).await;
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

/// A page may hold fewer tasks than it has rows, and yet lead to the next one.
async fn pages_go_on_behind_them(store: &SqliteStore, good: &TaskId) {
    let mut query = PageQuery {
        tenant: None,
        state: None,
        app_name: None,
        image_tag: None,
        order: Order::Oldest,
        limit: 1,
        after: None,
    };
    let mut seen = Vec::new();
    for _ in 0..3 {
        let page = store.page(&query).await.unwrap();
        seen.extend(page.tasks.into_iter().map(|task| task.id));
        query.after = page.next;
    }
    assert_eq!(query.after, None);
    assert_eq!(seen, std::slice::from_ref(good));
}

/// The second version of the tables comes over those of the first, with their rows.
#[tokio::test]
async fn old_tables_are_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let url = format!("sqlite:{}?mode=rwc", file.display());
    let old = SqlitePool::connect(&url).await.unwrap();
    let mut migrations = sqlx::migrate!("./migrations/sqlite");
    migrations.dangerous_set_table_name("ocibuild_migrations");
    migrations.run_to(1, &old).await.unwrap();
    let id = TaskId::random();
    for statement in [
        "INSERT INTO darwin_image_builder (task_id, app_name, image_tag) VALUES (?, 'serve', 'old')",
        "INSERT INTO ocibuild_task (task_id, dockerfile) VALUES (?, 'FROM scratch')",
    ] {
        sqlx::query(statement)
            .bind(id.as_str())
            .execute(&old)
            .await
            .unwrap();
    }
    old.close().await;
    let store = SqliteStore::open(&file).await.unwrap();
    assert_eq!(store.log_info(&id).await.unwrap(), None);
    let lease = std::time::Duration::from_secs(60);
    let claim = store.claim("test", lease, Some(1)).await.unwrap().unwrap();
    assert_eq!(claim.dockerfile.as_deref(), Some("FROM scratch"));
    let progress = Progress {
        log: b"new\n".to_vec(),
        ..Progress::default()
    };
    assert_eq!(store.record(&claim.lease, &progress).await.unwrap(), 4);
}
