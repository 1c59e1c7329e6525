//! What several tests need.

use ocibuild_store::MySqlSettings;
use ocibuild_store::testing::{MariaDb, MariaDbError};
use sqlx::Connection;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};

/// Gives the server, or says why the test is skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn server(started: Result<MariaDb, MariaDbError>) -> Option<MariaDb> {
    match started {
        Err(error @ MariaDbError::Missing { .. }) => {
            let all = std::env::var_os("OCIBUILD_TEST_ALL").is_some();
            assert!(!all, "{error}");
            eprintln!("skipped: {error}");
            None
        }
        started => Some(started.unwrap()),
    }
}

/// A connection as root, which has no password.
pub(crate) async fn connection(settings: &MySqlSettings) -> MySqlConnection {
    let options = MySqlConnectOptions::new()
        .host(&settings.host)
        .port(settings.port)
        .username(&settings.username)
        .database(&settings.database);
    MySqlConnection::connect_with(&options).await.unwrap()
}

/// A connection to a new database.
pub(crate) async fn new_database(server: &MariaDb, name: &str) -> MySqlConnection {
    let mut root = connection(&server.settings("mysql")).await;
    let create = format!("CREATE DATABASE {name}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create))
        .execute(&mut root)
        .await
        .unwrap();
    connection(&server.settings(name)).await
}

/// Gives an error and its causes in one text.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
