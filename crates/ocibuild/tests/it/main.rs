//! Integration tests of the library, one module for each room.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dockerfile;
mod git;
mod ignore;
mod table;
mod words;
