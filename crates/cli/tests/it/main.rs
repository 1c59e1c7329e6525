//! Tests of the command as users run it: flags, exit statuses, files and streams.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod build;
mod canary;
mod check;
mod command;
mod contexts;
mod embedded;
mod git_faults;
mod git_ssh;
mod interrupt;
mod limits;
mod platforms;
mod registries;
mod replicas;
mod serve;
mod served;
mod service;
mod settings;
mod store;
mod targets;
mod transfer;
