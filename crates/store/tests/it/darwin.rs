//! A table that Darwin's builder made, with its rows in it: used as it is.

use std::slice::from_ref;
use std::time::Duration;

use ocibuild_store::testing::{MariaDb, new_task};
use ocibuild_store::{
    Cancelled, End, Order, Outcome, PageQuery, Retention, TaskId, TaskState, TaskStore,
};
use ocibuild_store::{FailureCode, MySqlStore};
use sqlx::Executor;
use sqlx::mysql::MySqlConnection;

use crate::support::new_database;

const LEASE: Duration = Duration::from_secs(60);

pub(crate) async fn check(server: &MariaDb) {
    let mut darwin = new_database(server, "darwin").await;
    // Another collation, and times without the changes of their own that Darwin's DDL has.
    darwin
        .execute(
            "CREATE TABLE darwin_image_builder (
                 task_id VARCHAR(255) NOT NULL PRIMARY KEY, app_name VARCHAR(255) NOT NULL,
                 image_tag VARCHAR(255) NOT NULL, logs_url LONGTEXT, build_params JSON,
                 status VARCHAR(9) NOT NULL DEFAULT 'waiting',
                 created_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
                 updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
             ) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci",
        )
        .await
        .unwrap();
    let mut ids = Vec::new();
    for state in ["waiting", "waiting", "running", "completed"] {
        ids.push(insert(&mut darwin, state).await);
    }
    let [first, second, orphan, done] = ids.try_into().unwrap();

    let store = MySqlStore::connect(&server.settings("darwin"))
        .await
        .unwrap();
    its_rows_are_read(&store, &[&first, &second, &orphan, &done]).await;
    its_waiting_tasks_are_built(&store, &first).await;
    its_tasks_can_be_cancelled(&store, &second, &orphan).await;
    a_task_that_it_ends_is_pruned(&store, &mut darwin).await;
    its_table_is_as_it_was(&mut darwin).await;
}

async fn insert(darwin: &mut MySqlConnection, state: &str) -> TaskId {
    let id = TaskId::random();
    sqlx::query(
        "INSERT INTO darwin_image_builder
             (task_id, app_name, image_tag, logs_url, build_params, status)
         VALUES (?, 'serve', 'serve_v1', NULL, '{\"git_repo\": \"https://github.com/a/b\"}', ?)",
    )
    .bind(id.as_str())
    .bind(state)
    .execute(&mut *darwin)
    .await
    .unwrap();
    id
}

async fn its_rows_are_read(store: &MySqlStore, ids: &[&TaskId]) {
    let tasks = store.list().await.unwrap();
    assert_eq!(tasks.iter().map(|task| &task.id).collect::<Vec<_>>(), ids);
    assert_eq!(tasks[0].logs_url, "");
    assert_eq!(tasks[0].params.git_repo, "https://github.com/a/b");
    let query = PageQuery {
        tenant: None,
        state: Some(TaskState::Waiting),
        app_name: Some("serve".to_owned()),
        image_tag: None,
        order: Order::Oldest,
        limit: 1,
        after: None,
    };
    let page = store.page(&query).await.unwrap();
    let after = page.next.unwrap();
    let next = PageQuery {
        after: Some(after),
        ..query
    };
    let page = store.page(&next).await.unwrap();
    assert_eq!((&page.tasks[0].id, page.next), (ids[1], None));
    assert_eq!(store.ahead(ids[1]).await.unwrap(), Some(1));
    let queue = store.queue().await.unwrap();
    assert_eq!((queue.waiting, queue.running), (2, 1));
    for id in ids {
        assert_eq!(store.log_info(id).await.unwrap(), None);
    }
    assert_eq!(store.recover(1).await.unwrap().failed, []);
}

async fn its_waiting_tasks_are_built(store: &MySqlStore, id: &TaskId) {
    // What Darwin's builder runs does not count against the limit.
    let claim = store.claim("test", Duration::ZERO, Some(1)).await.unwrap();
    assert_eq!(&claim.unwrap().task.id, id);
    assert_eq!(store.recover(3).await.unwrap().requeued, from_ref(id));
    let claim = store.claim("test", LEASE, Some(1)).await.unwrap().unwrap();
    assert_eq!((&claim.task.id, claim.task.attempts), (id, 2));
    assert_eq!(store.claim("test", LEASE, Some(1)).await.unwrap(), None);
    let outcome = Outcome {
        end: End::Completed {
            digest: "sha256:1".to_owned(),
        },
        commit: None,
        pushed: Vec::new(),
    };
    store.finish(&claim.lease, &outcome).await.unwrap();
    let task = store.get(id).await.unwrap().unwrap();
    assert_eq!(task.state, TaskState::Completed);
    assert!(task.updated_at > task.created_at);
}

async fn its_tasks_can_be_cancelled(store: &MySqlStore, waiting: &TaskId, orphan: &TaskId) {
    for id in [waiting, orphan] {
        // Nobody would stop the one that runs: it has no lease.
        assert_eq!(store.cancel(id, "old").await.unwrap(), Cancelled::Ended);
        let task = store.get(id).await.unwrap().unwrap();
        assert_eq!(task.state, TaskState::Failed);
        assert_eq!(task.error_code, Some(FailureCode::Cancelled));
        let log = store.read_log(id, 0, 100).await.unwrap();
        assert_eq!(log.data, b"Build failed: old\n");
        assert_eq!(store.cancel(id, "old").await.unwrap(), Cancelled::TooLate);
    }
}

async fn a_task_that_it_ends_is_pruned(store: &MySqlStore, darwin: &mut MySqlConnection) {
    let everything = Retention {
        age: Duration::ZERO,
        total_bytes: u64::MAX,
    };
    store.prune_logs(&everything).await.unwrap();
    let new = new_task("ended elsewhere");
    store.enqueue(&new).await.unwrap();
    assert_eq!(store.prune_logs(&everything).await.unwrap(), []);
    sqlx::query("UPDATE darwin_image_builder SET status = 'completed' WHERE task_id = ?")
        .bind(new.id.as_str())
        .execute(&mut *darwin)
        .await
        .unwrap();
    assert_eq!(
        store.prune_logs(&everything).await.unwrap(),
        from_ref(&new.id)
    );
    // Put back by hand, it is built like a new one, with a new log.
    sqlx::query("UPDATE darwin_image_builder SET status = 'waiting' WHERE task_id = ?")
        .bind(new.id.as_str())
        .execute(&mut *darwin)
        .await
        .unwrap();
    let claim = store.claim("test", LEASE, None).await.unwrap().unwrap();
    assert_eq!((&claim.task.id, claim.task.ended_at), (&new.id, None));
    assert_eq!(store.log_info(&new.id).await.unwrap().unwrap().length, 0);
    store.release(&claim.lease).await.unwrap();
}

async fn its_table_is_as_it_was(darwin: &mut MySqlConnection) {
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT column_name FROM information_schema.columns
         WHERE table_schema = 'darwin' AND table_name = 'darwin_image_builder'
         ORDER BY ordinal_position",
    )
    .fetch_all(&mut *darwin)
    .await
    .unwrap();
    let expected = "task_id app_name image_tag logs_url build_params status created_at updated_at";
    assert_eq!(columns.join(" "), expected);
    let indexes: Vec<String> = sqlx::query_scalar(
        "SELECT index_name FROM information_schema.statistics
         WHERE table_schema = 'darwin' AND table_name = 'darwin_image_builder'",
    )
    .fetch_all(&mut *darwin)
    .await
    .unwrap();
    assert_eq!(indexes, ["PRIMARY"]);
}
