//! The builder's part of a command, the same for every engine: a helper is started and
//! told what to run, and what the command prints is passed on.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Stdio};

use rustix::event::{PollFd, PollFlags};

use super::error::Error;
use super::helper::{CancelWatch, Helper, Process, Retired, garbled, poll, talk};
use super::supervisor::kill_orphans;
use super::wire::{Reply, Request, Settings};
use super::{Exit, MountSource, RunSpec};
use crate::cancel::Cancel;
use crate::event::Stream;
use crate::secret::Hidden;

/// How much output is read at once; the size of a pipe.
const CHUNK: usize = 64 * 1024;

/// Starts helpers that run commands in one way.
#[derive(Debug)]
pub(super) struct Runner {
    helper: Helper,
    settings: Settings,
    /// Made once; the helpers of later commands enter it.
    user_namespace: Option<OwnedFd>,
    /// Where merged trees wait for the next command of their chain.
    pool: Option<PathBuf>,
    retired: Retired,
}

impl Runner {
    /// Runs commands as the settings say.
    pub(super) fn new(helper: &Helper, settings: Settings) -> Self {
        Self {
            helper: helper.clone(),
            settings,
            user_namespace: None,
            pool: None,
            retired: Retired::default(),
        }
    }

    /// The same in a user namespace.
    pub(super) fn inside(self, user_namespace: OwnedFd) -> Self {
        Self {
            user_namespace: Some(user_namespace),
            ..self
        }
    }

    /// The same with a folder for merged trees, which need not exist.
    pub(super) fn with_pool(self, pool: PathBuf) -> Self {
        Self {
            pool: Some(pool),
            ..self
        }
    }

    /// The same without a process id namespace, for where /proc is partly hidden.
    pub(super) fn without_pid_namespace(mut self) -> Self {
        self.settings.pid_namespace = false;
        self
    }

    /// Does all that a command needs and runs none.
    pub(super) fn rehearse(&self, spec: &RunSpec) -> Result<(), Error> {
        let settings = Settings {
            rehearsal: true,
            ..self.settings
        };
        let mut nothing = |_: Stream, _: &[u8]| ();
        self.run_with(spec, settings, &mut nothing, &Cancel::new())
            .map(drop)
    }

    /// Runs a command.
    pub(super) fn run(
        &self,
        spec: &RunSpec,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Exit, Error> {
        check(spec)?;
        self.run_with(spec, self.settings, output, cancel)
    }

    fn run_with(
        &self,
        spec: &RunSpec,
        settings: Settings,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Exit, Error> {
        let mut process = self.helper.start(Stdio::piped(), Stdio::piped())?;
        let request = Request::Run {
            spec: Box::new(spec.clone()),
            settings,
            pool: self.pool.clone().filter(|_| !settings.rehearsal),
        };
        process.ask(&request, self.user_namespace.as_ref().map(AsFd::as_fd))?;
        forward(&mut process, output, cancel)?;
        let (Reply::Exit(exit), _) = process.reply()? else {
            return Err(garbled());
        };
        process.retire(&self.retired);
        Ok(exit)
    }

    /// Runs a job.
    pub(super) fn call(&self, job: &str, input: &[u8], cancel: &Cancel) -> Result<Vec<u8>, Error> {
        let mut process = self.helper.start(Stdio::null(), Stdio::null())?;
        let request = Request::Call {
            job: job.to_owned(),
            input: input.to_owned(),
        };
        process.ask(&request, self.user_namespace.as_ref().map(AsFd::as_fd))?;
        match process.reply_unless(cancel)? {
            (Reply::Answer(answer), _) => Ok(answer),
            (Reply::JobFailed(message), _) => Err(Error::Job {
                job: job.to_owned(),
                message,
            }),
            _ => Err(garbled()),
        }
    }
}

/// Passes output on until both pipes are closed, which is when the command and all
/// that it started have ended, or until the build is cancelled.
fn forward(
    process: &mut Process,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> Result<(), Error> {
    let watch = CancelWatch::new(cancel)?;
    let (mut stdout, mut stderr) = process.take_outputs();
    let mut chunk = vec![0; CHUNK];
    let mut helper = process.watched();
    while stdout.is_some() || stderr.is_some() {
        let socket = helper.map(|(_, socket)| socket);
        let (ended, out, err) = wait(&watch, socket, stdout.as_ref(), stderr.as_ref())?;
        if ended && let Some((id, _)) = helper.take() {
            // Else what the command has left would hold the pipes open.
            kill_orphans(id);
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if out {
            pass_on(&mut stdout, Stream::Stdout, &mut chunk, output)?;
        }
        if err {
            pass_on(&mut stderr, Stream::Stderr, &mut chunk, output)?;
        }
    }
    // The helper may be cleaning up still, which nothing needs to interrupt.
    Ok(())
}

/// Waits for output; tells whether the helper has hung up and which pipe has some or is
/// closed.
fn wait(
    watch: &CancelWatch<'_>,
    helper: Option<BorrowedFd<'_>>,
    stdout: Option<&ChildStdout>,
    stderr: Option<&ChildStderr>,
) -> Result<(bool, bool, bool), Error> {
    // The bell stands in for what is closed: no events are asked of it.
    let watched = |file, events| match file {
        Some(file) => PollFd::from_borrowed_fd(file, events),
        None => PollFd::from_borrowed_fd(watch.bell(), PollFlags::empty()),
    };
    let mut polled = [
        PollFd::from_borrowed_fd(watch.bell(), PollFlags::IN),
        watched(helper, PollFlags::RDHUP),
        watched(stdout.map(AsFd::as_fd), PollFlags::IN),
        watched(stderr.map(AsFd::as_fd), PollFlags::IN),
    ];
    poll(&mut polled)?;
    let [_, ended, out, err] = polled.map(|polled| !polled.revents().is_empty());
    Ok((ended, out, err))
}

/// Reads what a pipe has; forgets the pipe at its end.
fn pass_on<R: Read>(
    pipe: &mut Option<R>,
    stream: Stream,
    chunk: &mut [u8],
    output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<(), Error> {
    let Some(open) = pipe else { return Ok(()) };
    match open
        .read(chunk)
        .map_err(talk("read the command's output"))?
    {
        0 => *pipe = None,
        length => output(stream, chunk.get(..length).unwrap_or_default()),
    }
    Ok(())
}

/// Refuses what could not be handed to the kernel, or would be taken from elsewhere
/// than meant.
fn check(spec: &RunSpec) -> Result<(), Error> {
    let wrong = |what: String| Err(Error::InvalidSpec(what));
    if spec.argv.first().is_none_or(String::is_empty) {
        return wrong("no program is named".into());
    }
    let variables = spec.env.iter().flat_map(|(name, value)| [name, value]);
    if spec
        .argv
        .iter()
        .chain(variables)
        .any(|text| text.contains('\0'))
    {
        return wrong("an argument or variable holds a NUL byte".into());
    }
    let secret =
        |(name, value): &(String, Hidden)| name.contains('\0') || value.expose().contains(&0);
    if spec.secret_env.iter().any(secret) {
        return wrong("a secret variable holds a NUL byte".into());
    }
    let root = &spec.rootfs;
    let sources = spec.mounts.iter().flat_map(|mount| match &mount.source {
        MountSource::Bind { path, .. } | MountSource::Socket { path, .. } => vec![path],
        MountSource::Layers {
            lowers,
            path,
            writes,
        } => {
            let writes = writes.iter().flat_map(|to| [&to.upper, &to.work]);
            lowers.iter().chain([path]).chain(writes).collect()
        }
        MountSource::File { .. } | MountSource::Tmpfs { .. } => Vec::new(),
    });
    let targets = spec.mounts.iter().map(|mount| &mount.target);
    let mut paths = root
        .lowers
        .iter()
        .chain([&root.upper, &root.work])
        .chain(sources)
        .chain(targets);
    match paths.find(|path| !is_usable(path)) {
        Some(path) => wrong(format!("{} is not an absolute path", path.display())),
        None => Ok(()),
    }
}

fn is_usable(path: &Path) -> bool {
    path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&0)
}
