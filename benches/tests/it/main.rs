//! Tests of the program that measures.

#![expect(clippy::print_stderr, reason = "a test says why it skips")]

mod instructions;
mod peers;
mod registry;
mod service;
mod smoke;
