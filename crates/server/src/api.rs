//! The HTTP side, one file for each resource. It reads and writes the task table and never
//! waits for a build.

pub(crate) mod docs;
pub(crate) mod error;
mod form;
pub(crate) mod health;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod queue;
pub(crate) mod tasks;
pub(crate) mod v1;
mod validate;
