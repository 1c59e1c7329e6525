//! The task table in one SQLite file, for a service that runs alone.
//!
//! Writers take the lock when they begin (`BEGIN IMMEDIATE`), so that no transaction fails
//! half-way; a commit is on disk before a client hears of it (`synchronous = FULL`).

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::raw_sql;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};

use crate::database::{Database, Readable};
use crate::statement::Statement;
use crate::store::{Result, StoreError};

/// How long a writer waits for the others.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How long one operation may take, the waiting for others included.
const OPERATION: Duration = Duration::from_secs(30);
const CONNECTIONS: u32 = 4;

/// A task table in one file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, which is created with its tables when missing. Its folder must exist.
    pub async fn open(file: &Path) -> Result<Self> {
        let name = file.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(LOCK_WAIT);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open {
                name: name.clone(),
                source,
            })?;
        let mut migrations = sqlx::migrate!("./migrations/sqlite");
        migrations.dangerous_set_table_name("ocibuild_migrations");
        // Migrations only add: what a newer version has added does not disturb this one.
        migrations.set_ignore_missing(true);
        migrations
            .run(&pool)
            .await
            .map_err(|source| StoreError::Migrate { name, source })?;
        Ok(Self { pool })
    }
}

impl Database for SqliteStore {
    type Driver = Sqlite;

    const BEGIN: &'static str = "BEGIN IMMEDIATE";

    const WORDS: &'static [(&'static str, &'static str)] = &[
        ("{now}", "strftime('%Y-%m-%d %H:%M:%f', 'now')"),
        (
            "{later}",
            "strftime('%Y-%m-%d %H:%M:%f', 'now', (? / 1000000.0) || ' seconds')",
        ),
        (
            "{earlier}",
            "strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000000.0) || ' seconds')",
        ),
        (
            "{wait}",
            "CAST((julianday('now') - julianday(MIN(created_at))) * 86400000000 AS INTEGER)",
        ),
        // Times have milliseconds; within one the row number tells who was first.
        ("{arrival}", "rowid"),
        ("{in order}", "ORDER BY d.created_at, d.rowid"),
        // The transaction has the whole file for itself.
        ("{lock}", ""),
        ("{insert new}", "INSERT OR IGNORE"),
    ];

    fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    fn timeout(&self) -> Duration {
        OPERATION
    }

    /// Rows that were copied from MySQL have microseconds.
    fn time(time: DateTime<Utc>) -> String {
        let format = if time.timestamp_subsec_micros().is_multiple_of(1000) {
            "%Y-%m-%d %H:%M:%S%.3f"
        } else {
            "%Y-%m-%d %H:%M:%S%.6f"
        };
        time.format(format).to_string()
    }

    async fn execute(
        connection: &mut SqliteConnection,
        statement: Statement,
    ) -> Result<u64, sqlx::Error> {
        let plain = statement.is_plain();
        let (text, arguments) = statement.written::<Sqlite>(Self::WORDS, Self::time)?;
        let done = if plain {
            raw_sql(text).execute(connection).await
        } else {
            sqlx::query_with(text, arguments).execute(connection).await
        };
        done.map(|done| done.rows_affected())
    }

    async fn fetch<T: Readable>(
        connection: &mut SqliteConnection,
        statement: Statement,
    ) -> Result<Vec<T>, sqlx::Error> {
        let (text, arguments) = statement.written::<Sqlite>(Self::WORDS, Self::time)?;
        sqlx::query_as_with(text, arguments)
            .fetch_all(connection)
            .await
    }
}
