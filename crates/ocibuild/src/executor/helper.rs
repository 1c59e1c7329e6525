//! The builder's end of the helper process: starting it, waiting for it and for a
//! cancel at once, and being sure that it is gone afterwards.

use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use super::error::Error;
use super::wire::{self, Reply, Request};
use super::{Failure, init};
use crate::cancel::Cancel;

/// The program that works as the helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Helper {
    /// The running program, whose `main` has called [`crate::init`].
    CurrentExe,
    /// Another program whose `main` begins with [`crate::init`].
    Program(PathBuf),
}

impl Helper {
    /// Starts the program with an empty environment, in `/`, with nothing open but the
    /// socket and the two given outputs.
    pub(super) fn start(&self, stdout: Stdio, stderr: Stdio) -> Result<Process, Error> {
        let program = match self {
            Self::CurrentExe if !init::was_called() => return Err(Error::InitNotCalled),
            // Not its path: the file may have been replaced by a newer version.
            Self::CurrentExe => Path::new("/proc/self/exe"),
            Self::Program(path) => path,
        };
        let failed = |source| Error::Start {
            program: program.to_owned(),
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let child = Command::new(program)
            .arg0(init::MARKER)
            .env_clear()
            .current_dir("/")
            // A group of its own, so that Ctrl-C reaches the builder alone.
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(failed)?;
        Ok(Process {
            child: Some(child),
            socket: ours,
        })
    }
}

/// A helper at work. Dropping it ends it and whatever it runs.
pub(super) struct Process {
    /// Always there, until it is given away at the end.
    child: Option<Child>,
    socket: UnixStream,
}

/// Helpers that have replied and only wait for the kernel to take their mounts down,
/// which takes some milliseconds that nobody needs to wait for.
#[derive(Debug, Default)]
pub(super) struct Retired(Mutex<Vec<Child>>);

impl Retired {
    /// Takes one more, and forgets those that have ended.
    fn add(&self, child: Child) {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        children.push(child);
    }
}

impl Drop for Retired {
    fn drop(&mut self) {
        let children = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for child in children {
            // There is nobody left to tell.
            let _ = child.wait();
        }
    }
}

impl Process {
    /// Sends the request.
    pub(super) fn ask(
        &self,
        request: &Request,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        match wire::send(&self.socket, request, user_namespace) {
            // It ended already; its reply or its status says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(talk("send the request")),
        }
    }

    /// The process id, and a socket that is hung up when the process has ended.
    pub(super) fn watched(&self) -> Option<(u32, BorrowedFd<'_>)> {
        let id = self.child.as_ref()?.id();
        Some((id, self.socket.as_fd()))
    }

    /// Takes the pipes that the helper's outputs were made with.
    pub(super) fn take_outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        match &mut self.child {
            Some(child) => (child.stdout.take(), child.stderr.take()),
            None => (None, None),
        }
    }

    /// Reads the reply.
    pub(super) fn reply(&mut self) -> Result<(Reply, Option<OwnedFd>), Error> {
        let reply = match wire::receive(&self.socket) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            other => other.map_err(talk("read the reply"))?,
        };
        match reply {
            Some((Reply::Failed(failure), _)) => Err(Error::Refused(failure)),
            Some(answer) => Ok(answer),
            None => Err(self.vanished()),
        }
    }

    /// Lets a helper that has replied end by itself.
    pub(super) fn retire(mut self, retired: &Retired) {
        if let Some(child) = self.child.take() {
            retired.add(child);
        }
    }

    fn vanished(&mut self) -> Error {
        match self.child.as_mut().map(Child::wait) {
            Some(Err(error)) => talk("wait for its end")(error),
            Some(Ok(status)) => Error::Vanished {
                status: status.to_string(),
            },
            None => Error::Vanished {
                status: "unknown status".into(),
            },
        }
    }

    /// Waits for a reply, however long it takes, unless the build is cancelled.
    pub(super) fn reply_unless(
        &mut self,
        cancel: &Cancel,
    ) -> Result<(Reply, Option<OwnedFd>), Error> {
        let watch = CancelWatch::new(cancel)?;
        let mut polled = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::from_borrowed_fd(watch.bell(), PollFlags::IN),
        ];
        poll(&mut polled)?;
        if cancel.is_cancelled() {
            // A job does not watch the socket.
            if let Some(child) = &mut self.child {
                child.kill().map_err(talk("kill it"))?;
            }
            return Err(Error::Cancelled);
        }
        self.reply()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The helper takes this as the builder's end, kills the command and cleans
            // up. Both calls fail only if it is gone already.
            let _ = self.socket.shutdown(Shutdown::Both);
            let _ = child.wait();
        }
    }
}

/// A descriptor that becomes readable when a build is cancelled.
pub(super) struct CancelWatch<'a> {
    bell: Arc<Bell>,
    /// Holds the registration of the waker.
    _cancelled: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl<'a> CancelWatch<'a> {
    /// Begins to watch.
    pub(super) fn new(cancel: &'a Cancel) -> Result<Self, Error> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| talk("make an eventfd")(errno.into()))?;
        let bell = Arc::new(Bell(descriptor));
        let mut cancelled: Pin<Box<dyn Future<Output = ()> + Send + 'a>> =
            Box::pin(cancel.cancelled());
        let waker = Waker::from(Arc::clone(&bell));
        if let Poll::Ready(()) = cancelled.as_mut().poll(&mut Context::from_waker(&waker)) {
            bell.ring();
        }
        Ok(Self {
            bell,
            _cancelled: cancelled,
        })
    }

    /// The descriptor.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.0.as_fd()
    }
}

struct Bell(OwnedFd);

impl Bell {
    fn ring(&self) {
        // Fails only when the counter is full, and then it is readable anyway.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// Waits until one of them has something.
pub(super) fn poll(polled: &mut [PollFd<'_>]) -> Result<(), Error> {
    rustix::io::retry_on_intr(|| rustix::event::poll(polled, None))
        .map(drop)
        .map_err(|errno| talk("poll")(errno.into()))
}

/// Says what was being done when an operation failed.
pub(super) fn talk(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Talk { doing, source }
}

/// An answer of another kind than the request has.
pub(super) fn garbled() -> Error {
    Error::Refused(Failure::Garbled)
}
