//! Tests of the command as users run it: flags, exit statuses, files and streams.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod build;
mod check;
mod command;
mod interrupt;
mod serve;
mod service;
mod settings;
mod transfer;
