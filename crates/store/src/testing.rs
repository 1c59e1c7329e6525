//! A real database server for tests, and the suite that every store must pass.

mod authority;
mod mariadb;
mod suite;

pub use authority::Authority;
pub use mariadb::{MariaDb, MariaDbError};
pub use suite::{check_restart, check_store, fill_for_restart, new_task};
