//! The helper's part of a command: makes the root, starts the command, watches it
//! and the builder at once, and leaves nothing behind.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process, pidfd_open,
    pidfd_send_signal, set_child_subreaper, wait,
};
use serde::{Deserialize, Serialize};

use super::error::{Attempt, Failure};
use super::place::Made;
use super::root::Root;
use super::supervisor::{Owners, Plan, Supervisor, View};
use super::sys::{self, Forked};
use super::wire::{self, Settings};
use super::{Exit, RunSpec, child, oom};

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

/// Runs a command in namespaces of its own; returns when nothing of it is left.
pub(super) fn run(
    spec: &RunSpec,
    settings: Settings,
    builder: &UnixStream,
) -> Result<Exit, Failure> {
    let memory = oom::Watch::begin();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let root = Root::mount(spec)?;
    if settings.rehearsal {
        root.check_removal()?;
    }

    let mut step = Step::start(spec, settings, &root)?;
    let ended = step.watch(spec, builder);
    let killed = step.end();
    let cleaned = root.clean_up(&step.made);

    let status = ended?;
    killed?;
    cleaned?;
    if let Some(failure) = step.failure {
        return Err(failure);
    }
    let exit = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
    };
    Ok(memory.explain(exit))
}

/// A command that was started.
struct Step {
    pid: Pid,
    pidfd: OwnedFd,
    /// From the child, until it is the command.
    reports: Option<UnixStream>,
    made: Vec<Made>,
    failure: Option<Failure>,
    status: Option<WaitStatus>,
    supervisor: Option<Supervisor>,
}

/// What a supervisor does for a command that has mounts of its own.
pub(super) fn plan(spec: &RunSpec) -> Plan {
    Plan {
        view: View::Mounts,
        root: None,
        owners: Owners::Recorded,
        binds: Vec::new(),
        folder: None,
        originals: None,
        network: spec.network,
    }
}

impl Step {
    /// Forks the process that becomes the command.
    fn start(spec: &RunSpec, settings: Settings, root: &Root) -> Result<Self, Failure> {
        let (mut reports, theirs) = UnixStream::pair().attempt("socketpair", "AF_UNIX")?;
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
                child::become_command(spec, settings, root, theirs)
            }
            Forked::Parent(pid) => pid,
        };
        drop(theirs);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).attempt("pidfd_open", "the command")?;
        release_outputs()?;
        // The child waits for this once it has asked to die with this process.
        reports
            .write_all(&[0])
            .attempt("write", "the start signal")?;
        let reports = Some(reports);
        Ok(Self {
            pid,
            pidfd,
            reports,
            made: Vec::new(),
            failure: None,
            status: None,
            supervisor: None,
        })
    }

    /// Waits for the end of the command; kills it when the builder hangs up.
    fn watch(&mut self, spec: &RunSpec, builder: &UnixStream) -> Result<WaitStatus, Failure> {
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
                self.kill()?;
            }
            if report {
                self.take_report(spec)?;
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
    fn take_report(&mut self, spec: &RunSpec) -> Result<(), Failure> {
        let Some(reports) = &self.reports else {
            return Ok(());
        };
        match wire::receive(reports) {
            Ok(Some((Report::Made(made), _))) => self.made = made,
            Ok(Some((Report::Failed(failure), _))) => self.failure = Some(failure),
            Ok(Some((Report::Listening, Some(listener)))) => {
                self.supervisor = Some(Supervisor::start(plan(spec), listener, self.pid)?);
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
