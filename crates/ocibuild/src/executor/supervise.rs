//! The helper's part of a command: makes the root, starts the command, watches it
//! and the builder at once, and leaves nothing behind. Where the command's threads are
//! traced, see [`super::traced`].

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process, pidfd_open,
    pidfd_send_signal, set_child_subreaper, wait,
};
use serde::{Deserialize, Serialize};

use super::error::{Attempt, Failure};
use super::ground::Ground;
use super::place::Made;
use super::supervisor::Supervisor;
use super::sys::{self, Forked};
use super::wire::{self, Settings};
use super::{Exit, RunSpec, child, confine, oom, traced};

/// How often orphans are looked after where the command is not their init.
const REAP_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// What the child tells before it becomes the command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It made these mount points in the root.
    Made(Vec<Made>),
    /// From here on its calls wait at the descriptor that comes along.
    Listening,
    /// It could not become the command.
    Failed(Failure),
}

/// Runs a command; returns when nothing of it is left.
pub(super) fn run(
    spec: &RunSpec,
    settings: Settings,
    pool: Option<&Path>,
    builder: &UnixStream,
) -> Result<Exit, Failure> {
    let memory = oom::Watch::begin();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let ground = Ground::prepare(spec, settings, pool)?;
    let step = Step::start(spec, settings, &ground)?;
    let past = if ground.is_traced() {
        traced::attend(step, spec, &ground, builder)?
    } else {
        step.attend(spec, &ground, builder)
    };
    let cleaned = if past.hung_up {
        ground.abandon(&past.made)
    } else {
        ground.finish(&past.made)
    };

    let ended = past.ended?;
    cleaned?;
    if let Some(failure) = past.failure {
        return Err(failure);
    }
    let exit = match ended {
        Ended::Exited(code) => Exit::Code(code),
        Ended::Killed(signal) => Exit::Signal(signal),
    };
    Ok(memory.explain(exit))
}

/// How the first process of a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    fn of(status: WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Killed(signal.unwrap_or(libc::SIGKILL)),
        }
    }
}

/// A command of which nothing is left.
pub(super) struct Past {
    /// How it ended, if it could be watched.
    pub(super) ended: Result<Ended, Failure>,
    /// What it told before it became the command.
    pub(super) failure: Option<Failure>,
    /// What it made in its root for mounts.
    pub(super) made: Vec<Made>,
    /// Whether the builder has lost interest.
    pub(super) hung_up: bool,
}

/// A command that was started.
pub(super) struct Step {
    /// Its first process.
    pub(super) pid: Pid,
    /// The same.
    pub(super) pidfd: OwnedFd,
    /// From the child, until it is the command.
    pub(super) reports: Option<UnixStream>,
    made: Vec<Made>,
    failure: Option<Failure>,
    status: Option<WaitStatus>,
    supervisor: Option<Supervisor>,
    hung_up: bool,
}

impl Step {
    /// Forks the process that becomes the command; it waits to be let go.
    fn start(spec: &RunSpec, settings: Settings, ground: &Ground) -> Result<Self, Failure> {
        let (reports, theirs) = UnixStream::pair().attempt("socketpair", "AF_UNIX")?;
        let forked = if settings.pid_namespace {
            sys::fork_into_pid_namespace().attempt("clone", "CLONE_NEWPID")?
        } else {
            // Orphans come to this process then and can be found.
            set_child_subreaper(Some(getpid())).attempt("prctl", "PR_SET_CHILD_SUBREAPER")?;
            sys::fork().attempt("fork", "the command's process")?
        };
        let pid = match forked {
            Forked::Child => {
                drop(reports);
                child::become_command(spec, settings, ground, theirs)
            }
            Forked::Parent(pid) => pid,
        };
        drop(theirs);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).attempt("pidfd_open", "the command")?;
        release_outputs()?;
        if settings.supervised {
            // The command is of the same user. Its own process has begun its life before.
            confine::hide_memory()?;
        }
        let reports = Some(reports);
        Ok(Self {
            pid,
            pidfd,
            reports,
            made: Vec::new(),
            failure: None,
            status: None,
            supervisor: None,
            hung_up: false,
        })
    }

    /// Lets the child go on, which waits for it once it has asked to die with this process.
    pub(super) fn let_go(&self) -> Result<(), Failure> {
        let Some(mut reports) = self.reports.as_ref() else {
            return Ok(());
        };
        reports.write_all(&[0]).attempt("write", "the start signal")
    }

    /// Sees the command to its end.
    fn attend(mut self, spec: &RunSpec, ground: &Ground, builder: &UnixStream) -> Past {
        let watched = self
            .let_go()
            .and_then(|()| self.watch(spec, ground, builder));
        let killed = self.end();
        Past {
            ended: watched.and_then(|status| killed.map(|()| Ended::of(status))),
            failure: self.failure,
            made: self.made,
            hung_up: self.hung_up,
        }
    }

    /// Waits for the end of the command; kills it when the builder hangs up.
    fn watch(
        &mut self,
        spec: &RunSpec,
        ground: &Ground,
        builder: &UnixStream,
    ) -> Result<WaitStatus, Failure> {
        let mut builder = Some(builder);
        loop {
            if let Some(status) = self.status
                && self.reports.is_none()
            {
                return Ok(status);
            }
            let (hung_up, report) = self.sleep(builder)?;
            if hung_up {
                builder = None;
                self.hung_up = true;
                self.kill()?;
            }
            if report {
                self.take_report(spec, ground)?;
            }
            self.reap()?;
        }
    }

    /// Sleeps until the builder hangs up, the child reports, or the command ends;
    /// tells the first two.
    fn sleep(&self, builder: Option<&UnixStream>) -> Result<(bool, bool), Failure> {
        let nothing = || PollFd::new(&self.pidfd, PollFlags::empty());
        let ended = if self.status.is_some() {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        let mut polled = [
            PollFd::new(&self.pidfd, ended),
            builder.map_or_else(nothing, |socket| PollFd::new(socket, PollFlags::RDHUP)),
            self.reports
                .as_ref()
                .map_or_else(nothing, |reports| PollFd::new(reports, PollFlags::IN)),
        ];
        match poll(&mut polled, Some(&REAP_EVERY)) {
            Err(Errno::INTR) => return Ok((false, false)),
            other => other.attempt("poll", "the command")?,
        };
        let [_, hung_up, report] = polled;
        let hung_up = builder.is_some() && !hung_up.revents().is_empty();
        Ok((
            hung_up,
            self.reports.is_some() && !report.revents().is_empty(),
        ))
    }

    /// Reads what the child says; its end of the socket closes when it becomes the command.
    fn take_report(&mut self, spec: &RunSpec, ground: &Ground) -> Result<(), Failure> {
        let Some(reports) = &self.reports else {
            return Ok(());
        };
        match wire::receive(reports) {
            Ok(Some((Report::Made(made), _))) => self.made = made,
            Ok(Some((Report::Failed(failure), _))) => self.failure = Some(failure),
            Ok(Some((Report::Listening, Some(listener)))) => {
                self.supervisor = Some(Supervisor::start(ground.plan(spec)?, listener, self.pid)?);
            }
            Ok(Some((Report::Listening, None))) => return Err(Failure::Garbled),
            Ok(None) => self.reports = None,
            // Killed in the middle of a report.
            Err(_) => self.reports = None,
        }
        Ok(())
    }

    /// Takes the status of whatever has ended, orphans too.
    fn reap(&mut self) -> Result<(), Failure> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => self.status = Some(status),
                Ok(Some(_)) => {}
                Ok(None) | Err(Errno::CHILD) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).attempt("waitid", "the command"),
            }
        }
    }

    fn kill(&self) -> Result<(), Failure> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            // It ended already.
            Err(Errno::SRCH) => Ok(()),
            other => other.attempt("pidfd_send_signal", "the command"),
        }
    }

    /// Kills the command, and whatever it started that is left. In a process id
    /// namespace the kernel has done that; else everything left is a descendant.
    fn end(&mut self) -> Result<(), Failure> {
        if self.status.is_none() {
            self.kill()?;
        }
        loop {
            for orphan in children() {
                // It may be a zombie by now.
                let _ = kill_process(orphan, Signal::KILL);
            }
            match wait(WaitOptions::empty()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return Ok(()),
                Err(errno) => return Err(errno).attempt("waitid", "what the command left"),
            }
        }
    }
}

/// The children of this process, which has one thread.
fn children() -> Vec<Pid> {
    let pid = getpid();
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    list.unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|child| Pid::from_raw(child.parse().ok()?))
        .collect()
}

/// Closes the command's outputs here, so that they end with the command.
fn release_outputs() -> Result<(), Failure> {
    let nowhere = File::options().read(true).write(true).open("/dev/null");
    let nowhere = nowhere.attempt("open", "/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere).attempt("dup2", "1")?;
    rustix::stdio::dup2_stderr(&nowhere).attempt("dup2", "2")
}
