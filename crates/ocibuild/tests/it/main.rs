//! Integration tests, one file per room.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod git;
