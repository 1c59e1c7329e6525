//! The helper process: what happens when this program was started by itself to run
//! one command or one job.
//!
//! It has one thread and an empty environment. Descriptor 0 is the socket to the
//! builder, 1 and 2 are the outputs of the command. It takes one request, enters the
//! user namespace that came with it, and ends after the reply.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::{Attempt, Failure};
use super::wire::{self, Reply, Request};
use super::{supervise, sys, userns};

/// The `argv[0]` of a helper.
pub(super) const MARKER: &str = "ocibuild-sandbox-helper";

/// A function that [`super::Sandbox::call`] can run in a process of its own.
pub type Job = fn(&[u8]) -> Result<Vec<u8>, String>;

static CALLED: AtomicBool = AtomicBool::new(false);

/// Tells whether this program can be its own helper.
pub(super) fn was_called() -> bool {
    CALLED.load(Ordering::Relaxed)
}

/// Does the helper's work and ends the process, if this is a helper; else returns.
pub(crate) fn enter(jobs: &[(&str, Job)]) {
    CALLED.store(true, Ordering::Relaxed);
    if std::env::args_os()
        .next()
        .is_some_and(|name| name.as_bytes() == MARKER.as_bytes())
    {
        let socket = UnixStream::from(OwnedFd::from(sys::adopt_stdin()));
        std::process::exit(serve(&socket, jobs))
    }
}

/// Takes the request and replies. A builder that is gone is no reason to complain.
fn serve(socket: &UnixStream, jobs: &[(&str, Job)]) -> i32 {
    let reply = match wire::receive(socket) {
        Ok(Some((request, namespace))) => answer(request, namespace, socket, jobs),
        Ok(None) => return 0,
        Err(_) => Err(Failure::Garbled),
    };
    let (reply, descriptor) = match reply {
        Ok(reply) => reply,
        Err(failure) => (Reply::Failed(failure), None),
    };
    let sent = wire::send(socket, &reply, descriptor.as_ref().map(AsFd::as_fd));
    i32::from(sent.is_err())
}

fn answer(
    request: Request,
    namespace: Option<OwnedFd>,
    socket: &UnixStream,
    jobs: &[(&str, Job)],
) -> Result<(Reply, Option<OwnedFd>), Failure> {
    if let Some(namespace) = namespace {
        let kind = Some(LinkNameSpaceType::User);
        move_into_link_name_space(namespace.as_fd(), kind)
            .attempt("setns", "the user namespace")?;
    }
    Ok(match request {
        Request::MakeUserNamespace(maps) => (Reply::UserNamespace, Some(userns::create(&maps)?)),
        Request::Run {
            spec,
            settings,
            pool,
        } => {
            let exit = supervise::run(&spec, settings, pool.as_deref(), socket)?;
            (Reply::Exit(exit), None)
        }
        Request::Call { job, input } => (call(&job, &input, jobs)?, None),
    })
}

/// Runs a job. It does not watch the socket, so the kernel is asked to end it with
/// the builder.
fn call(name: &str, input: &[u8], jobs: &[(&str, Job)]) -> Result<Reply, Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).attempt("prctl", "PR_SET_PDEATHSIG")?;
    let Some((_, job)) = jobs.iter().find(|(known, _)| *known == name) else {
        return Err(Failure::UnknownJob(name.to_owned()));
    };
    Ok(match job(input) {
        Ok(output) => Reply::Answer(output),
        Err(message) => Reply::JobFailed(message),
    })
}

/// The beginning of the names of overlayfs attributes, such as that of an opaque
/// directory, as the kernel reads them for this process: outside of the first user
/// namespace only `user.` attributes can be set and are looked at.
///
/// For jobs that unpack layers or read upper directories.
pub fn overlay_xattr_prefix() -> &'static str {
    if in_user_namespace() {
        "user.overlay."
    } else {
        "trusted.overlay."
    }
}

/// Tells whether this process is in any user namespace but the machine's first.
pub(super) fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}
