//! Integration tests of the library, one module for each room.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod build;
mod built;
mod cache;
mod checks;
mod config;
mod dockerfile;
mod git;
mod git_context;
mod git_policy;
mod ignore;
mod outputs;
mod run;
mod table;
mod words;
