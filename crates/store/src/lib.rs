//! The task table of the build service.
//!
//! What enters: new tasks, claims, heartbeats, outcomes. What leaves: tasks in the order
//! in which they came, each to one owner at a time. [`TaskStore`] says what a table can
//! do; [`SqliteStore`] keeps it in one file, [`MySqlStore`] in MySQL or MariaDB, where it
//! shares the table of Darwin's artifact builder. Neither knows what a build is.
//!
//! What both do is written once, in `table`; `database` carries the statements to either.

mod context;
mod database;
mod mysql;
mod outcome;
mod query;
mod record;
mod sqlite;
mod statement;
mod store;
mod table;
mod task;
#[cfg(feature = "testing")]
pub mod testing;

pub use context::{Context, ContextId, InvalidContextId};
pub use mysql::{
    InvalidDatabaseUrl, InvalidTlsMode, MySqlSettings, MySqlStore, MySqlTls, MySqlTlsMode,
};
pub use outcome::{CancelRequest, Cancelled, End, FailureCode, Outcome, Pushed};
pub use query::{Cursor, Order, Page, PageQuery, QueueState};
pub use record::{LogInfo, LogPart, Progress, Retention, Step, StepState};
pub use sqlite::SqliteStore;
pub use store::{Claim, Lease, Recovered, Result, StoreError, TaskStore};
pub use task::{BuildParams, IllegalMove, InvalidTaskId, NewTask, Task, TaskId, TaskState};
