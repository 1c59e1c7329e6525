//! The filter of a supervised command, and how its listener gets to the helper.
//!
//! Runs in the process that becomes the command. From the filter on its calls wait for
//! answers, so that nothing may be needed for sending the listener that itself waits.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::error::{Attempt, Failure};
use super::seccomp::{self, Action};
use super::supervise::Report;
use super::wire;

/// Puts this process under the filter, and lets the helper answer its calls.
pub(super) fn hand_over(
    sync: bool,
    rules: &[(&'static str, Action)],
    helper: &UnixStream,
) -> Result<(), Failure> {
    let listener = seccomp::confine_supervised(sync, rules)
        .attempt("seccomp", "SECCOMP_FILTER_FLAG_NEW_LISTENER")?;
    wire::send(helper, &Report::Listening, Some(listener.as_fd())).attempt("write", "the listener")
}
