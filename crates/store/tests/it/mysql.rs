use std::sync::Arc;
use std::time::Duration;

use ocibuild_store::testing::{MariaDb, check_restart, check_store, fill_for_restart, new_task};
use ocibuild_store::{MySqlSettings, MySqlStore, TaskId, TaskStore};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    let server = MariaDb::start().unwrap();
    let store = MySqlStore::connect(&server.settings("suite"))
        .await
        .unwrap();
    check_store(Arc::new(store)).await;

    // The same server also judges what is about databases rather than about tasks.
    a_second_replica_finds_the_tables(&server).await;
    passwords_may_contain_anything(&server).await;
    the_table_of_darwin_is_used_as_it_is(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_everything_over_a_crash() {
    let mut server = MariaDb::start().unwrap();
    let store = MySqlStore::connect(&server.settings("restart"))
        .await
        .unwrap();
    let tasks = fill_for_restart(&store).await;
    server.stop();
    let impatient = MySqlSettings {
        timeout: Duration::from_millis(200),
        ..server.settings("restart")
    };
    assert!(MySqlStore::connect(&impatient).await.is_err());
    server.start_again().unwrap();
    // The pool that was open over the crash reconnects by itself.
    check_restart(&store, &tasks).await;
}

/// A connection as root, which has no password.
async fn connection(settings: &MySqlSettings) -> MySqlConnection {
    let options = MySqlConnectOptions::new()
        .host(&settings.host)
        .port(settings.port)
        .username(&settings.username)
        .database(&settings.database);
    MySqlConnection::connect_with(&options).await.unwrap()
}

async fn a_second_replica_finds_the_tables(server: &MariaDb) {
    let settings = server.settings("odd`name");
    let (first, second) = tokio::join!(
        MySqlStore::connect(&settings),
        MySqlStore::connect(&settings)
    );
    first.unwrap().enqueue(&new_task("shared")).await.unwrap();
    assert_eq!(second.unwrap().list().await.unwrap().len(), 1);
}

async fn passwords_may_contain_anything(server: &MariaDb) {
    let password = r#"p@ss:w/ord?#%41&+ "quoted" `\ ü"#;
    let mut root = connection(&server.settings("suite")).await;
    let literal = password.replace('\\', "\\\\").replace('\'', "''");
    root.execute(AssertSqlSafe(format!(
        "CREATE USER u IDENTIFIED BY '{literal}'"
    )))
    .await
    .unwrap();
    root.execute("GRANT ALL ON suite.* TO u").await.unwrap();
    let settings = MySqlSettings {
        username: "u".to_owned(),
        password: password.to_owned(),
        ..server.settings("suite")
    };
    MySqlStore::connect(&settings)
        .await
        .unwrap()
        .ping()
        .await
        .unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("p@ss"), "{shown}");
}

/// Darwin's builder made the table, with another collation and with rows in it.
async fn the_table_of_darwin_is_used_as_it_is(server: &MariaDb) {
    let settings = server.settings("darwin");
    let mut root = connection(&server.settings("suite")).await;
    root.execute("CREATE DATABASE darwin").await.unwrap();
    let mut darwin = connection(&settings).await;
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
    let id = TaskId::random();
    sqlx::query(
        "INSERT INTO darwin_image_builder (task_id, app_name, image_tag, logs_url, build_params)
         VALUES (?, 'serve', 'serve_v1', NULL, '{\"git_repo\": \"https://github.com/a/b\"}')",
    )
    .bind(id.as_str())
    .execute(&mut darwin)
    .await
    .unwrap();

    let store = MySqlStore::connect(&settings).await.unwrap();
    assert_eq!(store.list().await.unwrap()[0].logs_url, "");
    let claim = store.claim("test", Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(claim.task.id, id);
    assert_eq!(claim.task.params.git_repo, "https://github.com/a/b");
    assert_eq!(
        store.recover(3).await.unwrap().requeued,
        std::slice::from_ref(&id)
    );
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT column_name FROM information_schema.columns
         WHERE table_schema = 'darwin' AND table_name = 'darwin_image_builder'
         ORDER BY ordinal_position",
    )
    .fetch_all(&mut darwin)
    .await
    .unwrap();
    let expected = "task_id app_name image_tag logs_url build_params status created_at updated_at";
    assert_eq!(columns.join(" "), expected);
}
