//! The service over real HTTP, on both databases, with a build process that does what the
//! tag of its image says.
#![expect(
    clippy::unwrap_used,
    reason = "what helps a test fails by panicking, too"
)]

mod api;
mod browser;
mod builds;
mod darwin;
mod fixture;
mod hostile;
mod logs;
mod many;
mod mariadb;
mod metrics;
mod ml_serve;
mod nginx;
mod openapi;
mod outage;
mod page;
mod queue;
mod tenants;
mod traces;
mod v1;
mod webdriver;
