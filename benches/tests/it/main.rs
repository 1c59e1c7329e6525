//! Tests of the program that measures.

#![expect(clippy::print_stderr, reason = "a test says why it skips")]

<<<<<<< HEAD
mod instructions;
mod peers;
=======
mod registry;
>>>>>>> registries
mod service;
mod smoke;
