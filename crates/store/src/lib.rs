//! The task table of the build service.
//!
//! What enters: new tasks, claims, heartbeats, outcomes. What leaves: tasks in the order
//! in which they came, each to one owner at a time. [`TaskStore`] says what a table can
//! do; [`SqliteStore`] keeps it in one file, [`MySqlStore`] in MySQL or MariaDB, where it
//! shares the table of Darwin's artifact builder. Neither knows what a build is.

mod mysql;
mod row;
mod sqlite;
mod store;
mod task;
#[cfg(feature = "testing")]
pub mod testing;

pub use mysql::{MySqlSettings, MySqlStore};
pub use sqlite::SqliteStore;
pub use store::{Claim, Lease, Outcome, Recovered, Result, StoreError, TaskStore};
pub use task::{BuildParams, IllegalMove, InvalidTaskId, NewTask, Task, TaskId, TaskState};
