//! One build process: started in a process group of its own, told its `BuildSpec`, listened
//! to until its `Report`, and ended with everything that it started.
//!
//! The process handles hostile input, so its lines are limited in length and its end is
//! explained from what the kernel says about it, not only from what it says itself.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use ocibuild::Event;
use ocibuild::executor::memory_kills;
use ocibuild_store::{FailureCode, Pushed};

use super::log::TaskLog;
use crate::spec::{BuildFailure, BuildResult, BuildSpec, FailureKind, Line, Report};

/// The most of one line that is kept.
const LINE_BYTES: usize = 1 << 20;
/// How many lines may wait to be written before the process has to wait.
const WAITING_LINES: usize = 256;
/// How long a pipe is read after the process ended: something it left behind may hold it.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a build may clean up that somebody cancels.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// The program that builds.
pub(super) struct WorkerProgram<'a> {
    pub(super) path: &'a Path,
    pub(super) arguments: &'a [String],
    /// All of its environment.
    pub(super) environment: &'a [(String, String)],
    /// How long it may clean up when it is to stop.
    pub(super) grace: Duration,
}

/// Why a build is stopped from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// It took longer than this.
    Timeout(Duration),
    /// Somebody wants it to end, for this reason.
    Cancelled(String),
    /// It took more memory than it may.
    Memory {
        /// What it may take, in bytes.
        limit: u64,
        /// What it took.
        used: u64,
    },
    /// The service ends.
    Shutdown,
    /// The task belongs to another worker now.
    LeaseLost,
}

/// How a build ended.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The process reports an image.
    Completed {
        result: BuildResult,
        commit: Option<String>,
        pushed: Vec<Pushed>,
    },
    /// There is no image, or not everywhere.
    Failed {
        code: FailureCode,
        reason: String,
        commit: Option<String>,
        pushed: Vec<Pushed>,
    },
    /// It was stopped, and that says nothing about the build.
    Stopped(Stop),
}

impl Verdict {
    /// A build that failed before its process said anything.
    pub(super) fn failed(code: FailureCode, reason: impl Into<String>) -> Self {
        Self::Failed {
            code,
            reason: reason.into(),
            commit: None,
            pushed: Vec::new(),
        }
    }
}

/// Runs a build process to its end, or until `stop`, which is told the process.
pub(super) async fn run<F: Future<Output = Stop>>(
    program: &WorkerProgram<'_>,
    spec: &BuildSpec,
    log: &mut TaskLog,
    stop: impl FnOnce(Option<u32>) -> F,
) -> Verdict {
    let failed = |reason: String| Verdict::failed(FailureCode::Internal, reason);
    let kills = memory_kills();
    let input = match serde_json::to_vec(spec) {
        Ok(input) => input,
        Err(error) => return failed(format!("cannot describe the build: {error}")),
    };
    let mut child = match spawn(program) {
        Ok(child) => child,
        Err(error) => return failed(format!("cannot start the build process: {error}")),
    };
    let group = Group::of(&child);
    let mut lines = listen(&mut child, input);
    let mut heard = Heard::default();
    let stop = stop(child.id());
    let end = tokio::select! {
        status = follow(&mut child, &mut lines, &mut heard, log) => Ok(status),
        stop = stop => Err(stop),
    };
    if let Err(stop) = &end {
        group.signal(Signal::TERM);
        let last_words = follow(&mut child, &mut lines, &mut heard, log);
        // Too late or not, the group is killed below.
        let _ = tokio::time::timeout(stop.grace(program.grace), last_words).await;
    }
    drop(group);
    let drained = drain(&mut lines, &mut heard, log);
    // Nobody of the group is left to write; who left it does not matter.
    let _ = tokio::time::timeout(DRAIN, drained).await;
    log.flush();
    heard.verdict(end, kills.is_some_and(|kills| memory_kills() > Some(kills)))
}

impl Stop {
    /// How long the process may clean up. Who waits for the end of a build, or for its
    /// memory, does not wait long.
    fn grace(&self, usual: Duration) -> Duration {
        match self {
            Self::Cancelled(_) => usual.min(CANCEL_GRACE),
            Self::Memory { .. } => Duration::ZERO,
            Self::Timeout(_) | Self::Shutdown | Self::LeaseLost => usual,
        }
    }
}

fn spawn(program: &WorkerProgram<'_>) -> io::Result<Child> {
    Command::new(program.path)
        .args(program.arguments)
        .env_clear()
        .envs(
            program
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// The process group of a build, all of which is killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It fails when the whole group has ended, which is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// The number of a group is not given away while a member lives, and this comes too soon
/// after the last one's end for it to be somebody else's.
impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// A line of the process.
enum Said {
    /// On standard output, where it speaks the protocol.
    Out(Vec<u8>),
    /// On standard error, where it complains.
    Err(Vec<u8>),
}

/// Sends the input, and gives the lines of both outputs as they come.
fn listen(child: &mut Child, input: Vec<u8>) -> mpsc::Receiver<Said> {
    let (sender, lines) = mpsc::channel(WAITING_LINES);
    if let Some(stdin) = child.stdin.take() {
        tokio::spawn(send(stdin, input));
    }
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(forward(stdout, sender.clone(), Said::Out));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(forward(stderr, sender, Said::Err));
    }
    lines
}

async fn send(mut stdin: ChildStdin, input: Vec<u8>) {
    // A process that ends before it has read everything explains itself by its end.
    if let Err(error) = stdin.write_all(&input).await {
        tracing::debug!(%error, "a build process did not read its input");
    }
}

/// Cuts a pipe into lines, of which it keeps at most [`LINE_BYTES`].
async fn forward(
    pipe: impl AsyncRead + Unpin,
    lines: mpsc::Sender<Said>,
    said: fn(Vec<u8>) -> Said,
) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        let chunk = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(chunk) => chunk,
        };
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = LINE_BYTES.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() && lines.send(said(std::mem::take(&mut line))).await.is_err() {
            return;
        }
    }
    if !line.is_empty() {
        // Nobody listens any more when this fails.
        let _ = lines.send(said(line)).await;
    }
}

/// Writes lines into the log until the process has ended.
async fn follow(
    child: &mut Child,
    lines: &mut mpsc::Receiver<Said>,
    heard: &mut Heard,
    log: &mut TaskLog,
) -> io::Result<ExitStatus> {
    let mut pulse = tokio::time::interval(log.pulse());
    loop {
        tokio::select! {
            Some(line) = lines.recv() => {
                heard.line(line, log);
                // One write for all that came at once, and none late.
                if lines.is_empty() {
                    log.flush();
                }
            }
            _ = pulse.tick() => log.still_alive(),
            status = child.wait() => return status,
        }
    }
}

async fn drain(lines: &mut mpsc::Receiver<Said>, heard: &mut Heard, log: &mut TaskLog) {
    while let Some(line) = lines.recv().await {
        heard.line(line, log);
    }
}

/// What the process has said so far.
#[derive(Default)]
struct Heard {
    commit: Option<String>,
    pushed: Vec<Pushed>,
    report: Option<Report>,
    last_complaint: String,
}

impl Heard {
    fn line(&mut self, line: Said, log: &mut TaskLog) {
        match line {
            Said::Out(bytes) => match serde_json::from_slice(&bytes) {
                Ok(Line::Event(event)) => self.event(event, log),
                Ok(Line::Report(report)) => self.report = Some(report),
                Err(_) => log.line(&String::from_utf8_lossy(&bytes)),
            },
            Said::Err(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                log.line(&text);
                if !text.trim().is_empty() {
                    self.last_complaint = text;
                }
            }
        }
    }

    fn event(&mut self, event: Event, log: &mut TaskLog) {
        if let Event::Commit { id } = &event
            && !is_commit_id(id)
        {
            return;
        }
        log.event(&event);
        match event {
            Event::Commit { id } => self.commit = Some(id),
            Event::Pushed {
                reference, digest, ..
            } => self.pushed.push(Pushed {
                reference,
                digest: digest.to_string(),
            }),
            _ => {}
        }
    }

    /// Judges a process by its report, its end, or why it was stopped. Only its own report
    /// makes a success, and always does: the image is in the registry by then.
    fn verdict(self, end: Result<io::Result<ExitStatus>, Stop>, memory_ran_out: bool) -> Verdict {
        let (commit, pushed) = (self.commit, self.pushed);
        let (code, reason) = match (self.report, end) {
            (Some(Report::Completed(result)), _) => {
                return Verdict::Completed {
                    result,
                    commit,
                    pushed,
                };
            }
            (_, Err(Stop::Timeout(limit))) => {
                let seconds = limit.as_secs();
                let reason = format!("the build took longer than {seconds} s and was stopped");
                (FailureCode::Timeout, reason)
            }
            (_, Err(Stop::Cancelled(reason))) => (FailureCode::Cancelled, reason),
            (_, Err(Stop::Memory { limit, used })) => {
                let reason = format!(
                    "the build took {used} bytes of memory, more than the {limit} that it may, \
                     and was stopped"
                );
                (FailureCode::OutOfMemory, reason)
            }
            (_, Err(stop @ (Stop::Shutdown | Stop::LeaseLost))) => return Verdict::Stopped(stop),
            (Some(Report::Failed(BuildFailure { reason, kind })), Ok(_)) => (code(kind), reason),
            (None, Ok(status)) => {
                end_without_report(status, self.last_complaint.trim(), memory_ran_out)
            }
        };
        Verdict::Failed {
            code,
            reason,
            commit,
            pushed,
        }
    }
}

fn code(kind: FailureKind) -> FailureCode {
    match kind {
        FailureKind::User => FailureCode::User,
        FailureKind::Command => FailureCode::Command,
        FailureKind::Registry => FailureCode::Registry,
        FailureKind::Sandbox => FailureCode::Sandbox,
        FailureKind::OutOfMemory => FailureCode::OutOfMemory,
        FailureKind::Internal => FailureCode::Internal,
    }
}

/// Tells whether the table has room for a commit: SHA-1 or SHA-256, in hexadecimal digits.
fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Explains the end of a process that did not explain itself.
fn end_without_report(
    status: io::Result<ExitStatus>,
    last_complaint: &str,
    memory_ran_out: bool,
) -> (FailureCode, String) {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let reason = format!("the build process cannot be waited for: {error}");
            return (FailureCode::Internal, reason);
        }
    };
    let (code, end) = match (status.signal(), status.code().unwrap_or_default()) {
        (Some(9), _) if memory_ran_out => (
            FailureCode::OutOfMemory,
            "the kernel killed the build process because memory ran out".to_owned(),
        ),
        (Some(9), _) => (
            FailureCode::Internal,
            "the build process was killed (signal 9), and not because memory ran out".to_owned(),
        ),
        (Some(signal), _) => (
            FailureCode::Internal,
            format!("the build process was ended by signal {signal}"),
        ),
        (None, code) => (
            FailureCode::Internal,
            format!("the build process ended with status {code} and without a result"),
        ),
    };
    if last_complaint.is_empty() {
        return (code, end);
    }
    (code, format!("{end}: {last_complaint}"))
}
