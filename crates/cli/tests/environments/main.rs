//! RUN in every environment: the cases of `testdata/sandbox` are built by the static command
//! as root, as users and in containers that may do less and less, and the images must be the
//! same everywhere.
//!
//! They run as root, on what `cargo xtask test --only packages` has made, and take long, so
//! they run when they are asked for: `cargo xtask test --only environments`.
//! What is missing is said; where `OCIBUILD_TEST_ALL` is set it is a failure.
//! `OCIBUILD_TEST_CASES` takes the beginning of names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod case;
mod conformity;
mod daemon;
mod endings;
mod environment;
mod expectation;
mod language;
mod mirror;
mod picture;
mod place;
