//! The service over real HTTP, on both databases, with a build process that does what the
//! tag of its image says.
#![expect(
    clippy::unwrap_used,
    reason = "what helps a test fails by panicking, too"
)]

mod api;
mod builds;
mod fixture;
mod mariadb;
