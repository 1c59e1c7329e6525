//! The filter of a supervised command, and how its listener gets to the helper.
//!
//! Runs in the process that becomes the command. From the filter on its calls wait for
//! answers, so that nothing may be needed for sending the listener that itself waits.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::error::{Attempt, Failure};
use super::seccomp::{self, Action, Test, Verdict};
use super::supervise::Report;
use super::wire;

/// The calls by which a descriptor and what belongs to it are sent.
const SEND: &[&str] = &["sendmsg", "sendto"];
/// As many descriptors as a command can have whose sending is supervised.
const MAX_DESCRIPTORS: u64 = 1 << 16;

/// Puts this process under the filter, and lets the helper answer its calls.
pub(super) fn hand_over(
    sync: bool,
    mut rules: Vec<(&'static str, Action)>,
    helper: &UnixStream,
) -> Result<(), Failure> {
    let wait = Action::Always(Verdict::Notify);
    let waits = |(name, action): &(&str, Action)| SEND.contains(name) && *action == wait;
    let reserved;
    let mut socket = helper;
    if rules.iter().any(waits) {
        reserved = reserve(helper)?;
        socket = &reserved;
        let exempt = unless_by(&reserved);
        for rule in rules.iter_mut().filter(|rule| waits(rule)) {
            rule.1 = exempt;
        }
    }
    let listener = seccomp::confine_supervised(sync, &rules)
        .attempt("seccomp", "SECCOMP_FILTER_FLAG_NEW_LISTENER")?;
    wire::send(socket, &Report::Listening, Some(listener.as_fd())).attempt("write", "the listener")
}

/// Gives the socket a number that no descriptor of the command can have, since it lies
/// beyond its limit.
fn reserve(socket: &UnixStream) -> Result<UnixStream, Failure> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit
        .maximum
        .unwrap_or(MAX_DESCRIPTORS)
        .min(MAX_DESCRIPTORS);
    let last = most.saturating_sub(1);
    limit_descriptors(most, most)?;
    let reserved = fcntl_dupfd_cloexec(socket, last as i32).attempt("fcntl", "F_DUPFD_CLOEXEC")?;
    limit_descriptors(limit.current.unwrap_or(last).min(last), last)?;
    Ok(reserved.into())
}

fn limit_descriptors(current: u64, most: u64) -> Result<(), Failure> {
    let limit = Rlimit {
        current: Some(current),
        maximum: Some(most),
    };
    setrlimit(Resource::Nofile, limit).attempt("setrlimit", "RLIMIT_NOFILE")
}

/// Lets a call through that is made with this descriptor.
fn unless_by(socket: &UnixStream) -> Action {
    // Both for the rest of this process's life, which ends with exec.
    let values = Vec::leak(vec![socket.as_raw_fd().cast_unsigned()]);
    let tests = Vec::leak(vec![Test {
        argument: 0,
        mask: u32::MAX,
        values,
    }]);
    Action::When {
        tests,
        met: Verdict::Allow,
        otherwise: Verdict::Notify,
    }
}
