//! Tests of the program that measures.

#![expect(clippy::print_stderr, reason = "a test says why it skips")]

mod peers;
mod service;
mod smoke;
