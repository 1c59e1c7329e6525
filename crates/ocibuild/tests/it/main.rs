//! Integration tests of the library, one module for each room.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod add_archive;
mod add_git;
mod add_http;
mod arrivals;
mod bad_input;
mod build;
mod built;
mod cache;
mod checks;
mod config;
mod conformance;
mod contexts;
mod copy_choice;
mod copy_files;
mod devices;
mod dockerfile;
mod file_server;
mod forms;
mod git;
mod git_attributes;
mod git_context;
mod git_lfs;
mod git_mirror;
mod git_names;
mod git_policy;
mod git_ssh;
mod ignore;
mod ignored;
mod outputs;
mod packed;
mod pipeline;
mod platforms;
mod properties;
mod run;
mod run_mounts;
mod shared_cache;
mod store;
mod table;
mod weights;
mod words;
