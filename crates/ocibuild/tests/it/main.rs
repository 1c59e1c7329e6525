//! Integration tests, one file per room.

mod git;
