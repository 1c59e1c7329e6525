//! The task table in MySQL or MariaDB, shared by any number of replicas.
//!
//! Darwin's own builder, which claims with `FOR UPDATE SKIP LOCKED`, can work on the same
//! table: every change of a task begins with the lock of its row there, and is short.

mod schema;
mod settings;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::mysql::{MySql, MySqlConnection, MySqlPool, MySqlPoolOptions};
use sqlx::{Connection, Executor, raw_sql};
use tokio::time::timeout;

use crate::database::{Database, Readable};
use crate::statement::Statement;
use crate::store::{Result, StoreError};

pub use settings::{InvalidDatabaseUrl, InvalidTlsMode, MySqlSettings, MySqlTls, MySqlTlsMode};

/// A task table on a database server.
#[derive(Debug, Clone)]
pub struct MySqlStore {
    pool: MySqlPool,
    timeout: Duration,
}

impl MySqlStore {
    /// Connects, and creates the database and the tables that are missing.
    pub async fn connect(settings: &MySqlSettings) -> Result<Self> {
        let failed = |source| StoreError::Open {
            name: settings.name(),
            source,
        };
        schema::create_database(settings).await.map_err(failed)?;
        let pool = pool(settings).await.map_err(failed)?;
        schema::migrate(&pool)
            .await
            .map_err(|source| StoreError::Migrate {
                name: settings.name(),
                source,
            })?;
        Ok(Self {
            pool,
            timeout: settings.timeout,
        })
    }
}

async fn pool(settings: &MySqlSettings) -> Result<MySqlPool, sqlx::Error> {
    let limit = settings.timeout;
    MySqlPoolOptions::new()
        .max_connections(settings.connections)
        .acquire_timeout(limit)
        .after_connect(|connection, _| {
            // Updates by primary key then lock their row and no gap beside it.
            let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
            Box::pin(async move { connection.execute(isolation).await.map(drop) })
        })
        .after_release(move |connection, _| {
            // The pool itself would wait for ever, and keep the place of the connection, when
            // the server's machine has vanished without a word.
            Box::pin(async move {
                timeout(limit, connection.ping())
                    .await
                    .unwrap_or(Err(sqlx::Error::PoolTimedOut))
                    .map(|()| true)
            })
        })
        .connect_with(settings.database_options())
        .await
}

impl Database for MySqlStore {
    type Driver = MySql;

    const BEGIN: &'static str = "START TRANSACTION";

    const WORDS: &'static [(&'static str, &'static str)] = &[
        ("{now}", "NOW(6)"),
        ("{later}", "TIMESTAMPADD(MICROSECOND, ?, NOW(6))"),
        ("{earlier}", "TIMESTAMPADD(MICROSECOND, -?, NOW(6))"),
        (
            "{wait}",
            "TIMESTAMPDIFF(MICROSECOND, MIN(created_at), NOW(6))",
        ),
        ("{arrival}", "task_id"),
        // It would write all rows with their long texts to a file and sort that.
        ("{in order}", ""),
        ("{lock}", "FOR UPDATE"),
        ("{insert new}", "INSERT IGNORE"),
    ];

    fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn time(time: DateTime<Utc>) -> String {
        time.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
    }

    async fn execute(
        connection: &mut MySqlConnection,
        statement: Statement,
    ) -> Result<u64, sqlx::Error> {
        let plain = statement.is_plain();
        let (text, arguments) = statement.written::<MySql>(Self::WORDS, Self::time)?;
        // MySQL prepares no START TRANSACTION.
        let done = if plain {
            raw_sql(text).execute(connection).await
        } else {
            sqlx::query_with(text, arguments).execute(connection).await
        };
        done.map(|done| done.rows_affected())
    }

    async fn fetch<T: Readable>(
        connection: &mut MySqlConnection,
        statement: Statement,
    ) -> Result<Vec<T>, sqlx::Error> {
        let (text, arguments) = statement.written::<MySql>(Self::WORDS, Self::time)?;
        sqlx::query_as_with(text, arguments)
            .fetch_all(connection)
            .await
    }
}
