//! The helper's part of a command whose threads are traced. The thread that forked the
//! command attends to their stops and to nothing else; another one listens to the builder
//! and to what the child tells before it becomes the command.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::RunSpec;
use super::error::{Attempt, Failure};
use super::ground::Ground;
use super::supervise::{Past, Report, Step};
use super::supervisor::{Plan, Supervisor};
use super::tracer::{Supervised, Tracer};
use super::wire;

/// Sees a command to its end.
pub(super) fn attend(
    step: Step,
    spec: &RunSpec,
    ground: &Ground,
    builder: &UnixStream,
) -> Result<Past, Failure> {
    let Ground::Plain(tree) = ground else {
        return Err(Failure::Garbled);
    };
    let (supervisors, supervisor) = channel();
    let (failures, failure) = channel();
    let supervised = Supervised::new(supervisor);
    let tracer = Tracer::seize(
        step.pid,
        supervised,
        tree.programs(),
        tree.originals().clone(),
    )
    .attempt("ptrace", "PTRACE_SEIZE")?;
    let listener = Listener {
        pid: step.pid,
        pidfd: step.pidfd.try_clone().attempt("dup", "the command")?,
        plan: Some(ground.plan(spec)?),
        supervisors,
        failures,
        hung_up: Arc::default(),
    };
    let heard = Arc::clone(&listener.hung_up);
    let builder = builder.try_clone().attempt("dup", "the builder's socket")?;
    step.let_go()?;
    let reports = step.reports;
    std::thread::Builder::new()
        .name("listener".into())
        .spawn(move || listener.listen(reports, builder))
        .attempt("clone", "a thread of the helper")?;

    let ended = tracer.attend();
    // Nobody is left who could tell more.
    let failure = failure.iter().last();
    Ok(Past {
        ended,
        failure,
        made: Vec::new(),
        hung_up: heard.load(Ordering::Relaxed),
    })
}

/// What listens while the tracer waits.
struct Listener {
    pid: Pid,
    pidfd: OwnedFd,
    plan: Option<Plan>,
    supervisors: Sender<Supervisor>,
    failures: Sender<Failure>,
    hung_up: Arc<AtomicBool>,
}

impl Listener {
    /// Until the child is the command, and then until the builder hangs up.
    fn listen(mut self, reports: Option<UnixStream>, builder: UnixStream) {
        if let Some(reports) = reports {
            self.take_reports(&reports, &builder);
        }
        let Self {
            pidfd,
            supervisors,
            failures,
            hung_up,
            ..
        } = self;
        // The tracer waits for the end of these.
        drop((supervisors, failures));
        loop {
            let mut polled = [PollFd::new(&builder, PollFlags::RDHUP)];
            match poll(&mut polled, None) {
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        hung_up.store(true, Ordering::Relaxed);
        // It has ended already, or ends now.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }

    fn take_reports(&mut self, reports: &UnixStream, builder: &UnixStream) {
        loop {
            let mut polled = [
                PollFd::new(reports, PollFlags::IN),
                PollFd::new(builder, PollFlags::RDHUP),
            ];
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            let [told, hung_up] = polled;
            if !hung_up.revents().is_empty() {
                return;
            }
            if !told.revents().is_empty() && !self.take_report(reports) {
                return;
            }
        }
    }

    /// Tells whether there may be more.
    fn take_report(&mut self, reports: &UnixStream) -> bool {
        let failure = match wire::receive(reports) {
            Ok(Some((Report::Listening, Some(listener)))) => match self.start(listener) {
                Ok(()) => return true,
                Err(failure) => failure,
            },
            Ok(Some((Report::Failed(failure), _))) => failure,
            // It is the command now, or was killed.
            _ => return false,
        };
        // Nobody hears it only if the tracer has failed itself.
        let _ = self.failures.send(failure);
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        false
    }

    fn start(&mut self, listener: OwnedFd) -> Result<(), Failure> {
        let plan = self.plan.take().ok_or(Failure::Garbled)?;
        let supervisor = Supervisor::start(plan, listener, self.pid)?;
        self.supervisors
            .send(supervisor)
            .map_err(|_| Failure::Garbled)
    }
}
