//! The database and its tables: made when missing, brought up to date, left alone otherwise.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlPool};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use super::MySqlSettings;

/// How long a replica waits while another one makes the tables.
const MIGRATION_WAIT_SECONDS: u32 = 60;
/// MySQL's error for a database that does not exist (`ER_BAD_DB_ERROR`).
const UNKNOWN_DATABASE: u16 = 1049;
/// MySQL's error for a table that does not exist (`ER_NO_SUCH_TABLE`).
const UNKNOWN_TABLE: u16 = 1146;
/// MySQL's error for a table that the user may not touch (`ER_TABLEACCESS_DENIED_ERROR`), which
/// is also its answer when such a table does not exist.
const TABLE_DENIED: u16 = 1142;

/// Creates the database if the server does not know it. A user who may not create
/// databases can so use one that is there.
pub(super) async fn create_database(settings: &MySqlSettings) -> Result<(), sqlx::Error> {
    let unknown = match connect(settings, settings.database_options()).await {
        Ok(connection) => return connection.close().await,
        Err(error) => error,
    };
    if mysql_error_number(&unknown) != Some(UNKNOWN_DATABASE) {
        return Err(unknown);
    }
    let mut connection = connect(settings, settings.server_options()).await?;
    let name = settings.database.replace('`', "``");
    let create = format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4");
    // An identifier cannot be bound; it is quoted above.
    connection.execute(AssertSqlSafe(create)).await?;
    connection.close().await
}

async fn connect(
    settings: &MySqlSettings,
    options: MySqlConnectOptions,
) -> Result<MySqlConnection, sqlx::Error> {
    tokio::time::timeout(settings.timeout, options.connect())
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Brings the tables up to date, one replica at a time. A user who may not make or change
/// tables can so use tables that are up to date.
///
/// The lock is our own: sqlx asks for one with a negative time limit, which MariaDB answers
/// at once without giving it.
pub(super) async fn migrate(pool: &MySqlPool) -> Result<(), MigrateError> {
    let mut migrations = sqlx::migrate!("./migrations/mysql");
    migrations.dangerous_set_table_name("ocibuild_migrations");
    migrations.set_locking(false);
    // Migrations only add: what a newer version has added does not disturb this one.
    migrations.set_ignore_missing(true);
    let mut connection = pool.acquire().await?;
    if is_up_to_date(&mut connection, &migrations).await? {
        return Ok(());
    }
    let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(MD5(DATABASE()), ?)")
        .bind(MIGRATION_WAIT_SECONDS)
        .fetch_one(&mut *connection)
        .await?;
    if locked != Some(1) {
        let text = "another replica has not finished with the tables in time";
        return Err(sqlx::Error::Protocol(text.to_owned()).into());
    }
    let result = run(&mut connection, &migrations).await;
    // Closing the connection releases the lock, whatever happened before.
    connection.close().await?;
    result
}

async fn run(connection: &mut MySqlConnection, migrations: &Migrator) -> Result<(), MigrateError> {
    forget_unfinished(connection).await?;
    migrations.run(connection).await
}

async fn is_up_to_date(
    connection: &mut MySqlConnection,
    migrations: &Migrator,
) -> Result<bool, sqlx::Error> {
    let applied: Vec<(i64, Vec<u8>)> =
        match sqlx::query_as("SELECT version, checksum FROM ocibuild_migrations WHERE success")
            .fetch_all(connection)
            .await
        {
            Err(error) if has_no_table(&error) => return Ok(false),
            applied => applied?,
        };
    Ok(migrations.iter().all(|migration| {
        applied.iter().any(|(version, checksum)| {
            *version == migration.version && checksum[..] == migration.checksum[..]
        })
    }))
}

/// Takes back that a migration was begun which a crash or a missing right broke off: each can
/// be run again from its beginning.
async fn forget_unfinished(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    let deleted = connection
        .execute("DELETE FROM ocibuild_migrations WHERE NOT success")
        .await;
    match deleted {
        Err(error) if has_no_table(&error) => Ok(()),
        deleted => deleted.map(drop),
    }
}

fn has_no_table(error: &sqlx::Error) -> bool {
    let number = mysql_error_number(error);
    matches!(number, Some(UNKNOWN_TABLE | TABLE_DENIED))
}

fn mysql_error_number(error: &sqlx::Error) -> Option<u16> {
    let database_error = error.as_database_error()?;
    database_error
        .try_downcast_ref::<MySqlDatabaseError>()
        .map(MySqlDatabaseError::number)
}
