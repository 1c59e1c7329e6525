//! Both stores, each judged by the same suite.
#![expect(
    clippy::unwrap_used,
    reason = "what helps a test fails by panicking, too"
)]

mod mysql;
mod sqlite;
