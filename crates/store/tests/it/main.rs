//! Both stores, each judged by the same suite.
#![expect(
    clippy::unwrap_used,
    reason = "what helps a test fails by panicking, too"
)]

mod darwin;
mod mysql;
mod outage;
mod schema;
mod sqlite;
mod support;
mod tls;
