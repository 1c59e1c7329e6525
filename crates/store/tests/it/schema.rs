//! The tables of MySQL: made once, brought up to date, used by those who may not change them.

use std::slice::from_ref;

use ocibuild_store::testing::{MariaDb, new_task};
use ocibuild_store::{MySqlSettings, MySqlStore, TaskId, TaskState, TaskStore};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{causes, connection, new_database};

pub(crate) async fn check(server: &MariaDb) {
    a_second_replica_finds_the_tables(server).await;
    passwords_may_contain_anything(server).await;
    old_tables_are_brought_up_to_date(server).await;
    a_migration_that_was_broken_off_is_run_again(server).await;
    what_a_newer_version_added_is_left_alone(server).await;
    whoever_may_not_change_tables_can_use_them(server).await;
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
    let store = MySqlStore::connect(&settings).await.unwrap();
    store.ping().await.unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("p@ss"), "{shown}");
}

/// Makes the tables as the first version did, with a task that it was building.
async fn old_tables(database: &mut MySqlConnection) -> TaskId {
    let mut migrations = sqlx::migrate!("./migrations/mysql");
    migrations.dangerous_set_table_name("ocibuild_migrations");
    migrations.set_locking(false);
    migrations.run_to(1, &mut *database).await.unwrap();
    let id = TaskId::random();
    for statement in [
        "INSERT INTO darwin_image_builder (task_id, app_name, image_tag, status)
         VALUES (?, 'serve', 'old', 'running')",
        "INSERT INTO ocibuild_task (task_id, attempts, lease_owner, lease_token, lease_expires_at)
         VALUES (?, 1, 'old', 'token', '2020-01-01')",
    ] {
        sqlx::query(statement)
            .bind(id.as_str())
            .execute(&mut *database)
            .await
            .unwrap();
    }
    id
}

async fn old_tables_are_brought_up_to_date(server: &MariaDb) {
    let mut database = new_database(server, "old").await;
    let id = old_tables(&mut database).await;
    let store = MySqlStore::connect(&server.settings("old")).await.unwrap();
    assert_eq!(store.list().await.unwrap()[0].id, id);
    // Its log is a file of the old version.
    assert_eq!(store.log_info(&id).await.unwrap(), None);
    assert_eq!(store.recover(1).await.unwrap().failed, from_ref(&id));
    let log = store.read_log(&id, 0, u64::MAX).await.unwrap();
    let text = String::from_utf8(log.data).unwrap();
    assert!(text.starts_with("Build failed: the worker"), "{text}");
}

async fn a_migration_that_was_broken_off_is_run_again(server: &MariaDb) {
    let mut database = new_database(server, "broken").await;
    old_tables(&mut database).await;
    let settings = server.settings("broken");
    let begun = "INSERT INTO ocibuild_migrations VALUES (2, 'records', NOW(), FALSE, '', -1)";
    database.execute(begun).await.unwrap();
    MySqlStore::connect(&settings).await.unwrap();
    // Also when everything was done except for the note that it was.
    let undone = "UPDATE ocibuild_migrations SET success = FALSE";
    database.execute(undone).await.unwrap();
    let store = MySqlStore::connect(&settings).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 1);
    let done: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM ocibuild_migrations WHERE success = TRUE")
            .fetch_one(&mut database)
            .await
            .unwrap();
    assert_eq!(done, 2);
}

async fn what_a_newer_version_added_is_left_alone(server: &MariaDb) {
    let settings = server.settings("newer");
    MySqlStore::connect(&settings).await.unwrap();
    let mut database = connection(&settings).await;
    for statement in [
        "INSERT INTO ocibuild_migrations VALUES (99, 'newer', NOW(), TRUE, 'x', 1)",
        "ALTER TABLE ocibuild_task ADD COLUMN newer INT NOT NULL DEFAULT 7",
    ] {
        database.execute(statement).await.unwrap();
    }
    let store = MySqlStore::connect(&settings).await.unwrap();
    let new = new_task("older version");
    store.enqueue(&new).await.unwrap();
    let task = store.get(&new.id).await.unwrap().unwrap();
    assert_eq!(task.state, TaskState::Waiting);
}

async fn whoever_may_not_change_tables_can_use_them(server: &MariaDb) {
    MySqlStore::connect(&server.settings("rights"))
        .await
        .unwrap();
    new_database(server, "nothing").await;
    let mut root = connection(&server.settings("mysql")).await;
    root.execute("CREATE USER plain").await.unwrap();
    for database in ["rights", "nothing"] {
        let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO plain");
        root.execute(AssertSqlSafe(grant)).await.unwrap();
    }
    let plain = |database: &str| MySqlSettings {
        username: "plain".to_owned(),
        ..server.settings(database)
    };
    let store = MySqlStore::connect(&plain("rights")).await.unwrap();
    store.enqueue(&new_task("plain")).await.unwrap();
    let error = MySqlStore::connect(&plain("nothing")).await.unwrap_err();
    let text = causes(&error);
    assert!(
        text.starts_with("cannot prepare the tables of 127.0.0.1:"),
        "{text}"
    );
    assert!(text.contains("CREATE command denied"), "{text}");
}
