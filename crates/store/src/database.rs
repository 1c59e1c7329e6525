//! How the table speaks to a database: one short piece of work at a time.
//!
//! Both databases do the same work with the same statements; [`Database`] holds what differs.
//! A [`Work`] has one connection and one deadline. Whoever drops it half-way, because the
//! deadline has passed or the caller has gone, also closes the connection: sqlx does not know
//! whether a `BEGIN` that nobody waited for has come through, and the next user of such a
//! connection would write into a transaction that nobody commits.

use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::mysql::MySqlRow;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Pool};
use tokio::time::{Instant, timeout_at};

use crate::statement::{Statement, sql};
use crate::store::{Result, StoreError, during};

/// How often work is begun anew that the database broke off in favour of somebody else's.
const DEADLOCK_TRIES: usize = 4;
/// The class of errors that say so, the same text in every SQL database.
const SERIALIZATION_FAILURE: &str = "40001";

/// One of the two databases: how statements reach it, and what it writes differently.
pub(crate) trait Database: Send + Sync + 'static {
    /// The database as sqlx knows it.
    type Driver: sqlx::Database;

    /// Opens a transaction that writes.
    const BEGIN: &'static str;

    /// What the words in braces of a [`Statement`] mean here:
    ///
    /// - `{now}`: the present;
    /// - `{later}`, `{earlier}`: the moment `?` microseconds after, or before it;
    /// - `{wait}`: how many microseconds ago the oldest `created_at` is;
    /// - `{arrival}`: the column that decides who was first within one moment;
    /// - `{in order}`: orders all tasks by their arrival, unless the database is slow at that;
    /// - `{lock}`: makes a SELECT lock what it reads;
    /// - `{insert new}`: begins an INSERT that passes over a key that is there.
    const WORDS: &'static [(&'static str, &'static str)];

    /// The connections.
    fn pool(&self) -> &Pool<Self::Driver>;

    /// How long one piece of work may take.
    fn timeout(&self) -> Duration;

    /// Writes a time as the columns have it, so that both can be compared.
    fn time(time: DateTime<Utc>) -> String;

    /// Carries out a statement; gives how many rows it found.
    fn execute(
        connection: &mut Connection<Self>,
        statement: Statement,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Reads rows.
    fn fetch<T: Readable>(
        connection: &mut Connection<Self>,
        statement: Statement,
    ) -> impl Future<Output = Result<Vec<T>, sqlx::Error>> + Send;
}

/// A connection to a database.
pub(crate) type Connection<D> = <<D as Database>::Driver as sqlx::Database>::Connection;

/// What can be read from a row of either database.
pub(crate) trait Readable:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, MySqlRow> + Send + Unpin
{
}

impl<T> Readable for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, MySqlRow> + Send + Unpin
{
}

/// A few statements on one connection, which must be done by a deadline.
pub(crate) struct Work<D: Database> {
    connection: PoolConnection<D::Driver>,
    action: &'static str,
    deadline: Instant,
    in_transaction: bool,
    in_flight: bool,
}

impl<D: Database> Work<D> {
    /// Begins work whose statements each count by themselves.
    pub(crate) async fn plain(database: &D, action: &'static str) -> Result<Self> {
        let deadline = Instant::now() + database.timeout();
        let connection = timeout_at(deadline, database.pool().acquire())
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
            .map_err(during(action))?;
        Ok(Self {
            connection,
            action,
            deadline,
            in_transaction: false,
            in_flight: false,
        })
    }

    /// Begins work whose statements count together, once they are committed.
    pub(crate) async fn transaction(database: &D, action: &'static str) -> Result<Self> {
        let mut work = Self::plain(database, action).await?;
        work.in_transaction = true;
        work.execute(sql(D::BEGIN)).await?;
        Ok(work)
    }

    /// Carries out a statement; gives how many rows it found.
    pub(crate) async fn execute(&mut self, statement: Statement) -> Result<u64> {
        self.in_flight = true;
        let done = timeout_at(self.deadline, D::execute(&mut self.connection, statement)).await;
        self.landed(done.unwrap_or_else(|_| Err(silence())))
    }

    /// Reads rows.
    pub(crate) async fn rows<T: Readable>(&mut self, statement: Statement) -> Result<Vec<T>> {
        self.in_flight = true;
        let done = timeout_at(self.deadline, D::fetch(&mut self.connection, statement)).await;
        self.landed(done.unwrap_or_else(|_| Err(silence())))
    }

    /// Reads the first row, if there is one.
    pub(crate) async fn row<T: Readable>(&mut self, statement: Statement) -> Result<Option<T>> {
        Ok(self.rows(statement).await?.into_iter().next())
    }

    /// Makes everything count that was done since the transaction began.
    pub(crate) async fn commit(mut self) -> Result<()> {
        self.execute(sql("COMMIT")).await?;
        self.in_transaction = false;
        Ok(())
    }

    fn landed<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T> {
        // What the database itself refused leaves the connection as it was.
        self.in_flight = !matches!(result, Ok(_) | Err(sqlx::Error::Database(_)));
        result.map_err(during(self.action))
    }
}

impl<D: Database> Drop for Work<D> {
    fn drop(&mut self) {
        if self.in_transaction || self.in_flight {
            self.connection.close_on_drop();
        }
    }
}

fn silence() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the database did not answer in time",
    ))
}

/// Does work anew that the database broke off because it and another waited for each other.
pub(crate) async fn retried<T, F>(work: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    for _ in 1..DEADLOCK_TRIES {
        match work().await {
            Err(StoreError::Query { source, .. }) if is_deadlock(&source) => {}
            done => return done,
        }
    }
    work().await
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(SERIALIZATION_FAILURE)
}

/// Gives the microseconds of a duration, none longer than what the databases can add to a time.
pub(crate) fn microseconds(time: Duration) -> i64 {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
    i64::try_from(time.min(LONGEST).as_micros()).unwrap_or(i64::MAX)
}
