//! What can go wrong, on both sides of the socket: [`Failure`] is what the helper
//! tells, [`Error`] what the builder gets.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Why a command could not be run, or a job not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `Helper::CurrentExe` needs a program that takes part.
    #[error("the program cannot be its own helper: call ocibuild::init() first in main")]
    InitNotCalled,
    /// The helper program could not be started.
    #[error("start helper process {program}")]
    Start {
        /// What was started.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The socket, a pipe or a poll failed.
    #[error("talk to the helper process: {doing}")]
    Talk {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The helper ended without an answer.
    #[error(
        "the helper process ended before it answered ({status}); does its main call ocibuild::init() first?"
    )]
    Vanished {
        /// How it ended.
        status: String,
    },
    /// The helper could not prepare or start the command.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The request itself is wrong.
    #[error("invalid run specification: {0}")]
    InvalidSpec(String),
    /// A job ran and failed.
    #[error("{job}: {message}")]
    Job {
        /// Its name.
        job: String,
        /// What it said.
        message: String,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// The status a shell would report where a command could not be started at all:
    /// 127 where there is no such program, 126 where it cannot be executed.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Refused(Failure::CommandNotFound { .. }) => Some(127),
            Self::Refused(Failure::NotExecutable { .. }) => Some(126),
            _ => None,
        }
    }

    /// Tells whether the command or the image is to blame rather than the machine.
    pub fn is_users(&self) -> bool {
        match self {
            Self::Refused(failure) => !matches!(failure, Failure::System { .. }),
            Self::InvalidSpec(_) => true,
            _ => false,
        }
    }
}

/// What the helper process could not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Failure {
    /// The kernel refused something.
    #[error("{call} {subject}: {}", ErrnoText(*errno))]
    System {
        /// The system call.
        call: String,
        /// What it was done to.
        subject: String,
        /// The error number.
        errno: i32,
    },
    /// A program that was needed failed.
    #[error("{program}: {message}")]
    Program {
        /// Which one.
        program: String,
        /// What it said.
        message: String,
    },
    /// There is no such program in the image.
    #[error("command not found: {program}")]
    CommandNotFound {
        /// Its `argv[0]`.
        program: String,
    },
    /// The program exists and cannot be executed.
    #[error("cannot execute {program}: {}", ErrnoText(*errno))]
    NotExecutable {
        /// Its `argv[0]`.
        program: String,
        /// The error number.
        errno: i32,
    },
    /// The image has no such user.
    #[error("unable to find user {0}: no matching entry in /etc/passwd")]
    NoSuchUser(String),
    /// The image has no such group.
    #[error("unable to find group {0}: no matching entry in /etc/group")]
    NoSuchGroup(String),
    /// An id cannot be had under this identity.
    #[error("id {id} of user {user:?} is not among the {available} ids that this user may use")]
    IdNotMapped {
        /// The user that was asked for.
        user: String,
        /// The id that is out of range.
        id: u32,
        /// How many ids there are.
        available: u32,
    },
    /// The kernel stacks no more layers.
    #[error("{count} layers are more than the {limit} that the kernel stacks")]
    TooManyLayers {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A path of the image cannot be used for what was asked.
    #[error("{path}: {reason}")]
    UnusablePath {
        /// The path, inside the root.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A command went on and on starting processes.
    #[error("more than {limit} processes and threads of one command at once")]
    TooManyProcesses {
        /// How many there may be.
        limit: usize,
    },
    /// The plain tree of a command could not be made, or its changes not be found.
    #[error("the file system of the command: {0}")]
    Tree(String),
    /// No job has this name in this program.
    #[error("the helper program has no job {0:?}")]
    UnknownJob(String),
    /// The message on the socket was not understood.
    #[error("the helper program did not understand the request")]
    Garbled,
}

impl Failure {
    /// The error number, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { errno, .. } | Self::NotExecutable { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// Names the call and the thing while an error is passed up.
pub(super) trait Attempt<T> {
    /// Turns the error into [`Failure::System`].
    fn attempt(self, call: &str, subject: impl fmt::Display) -> Result<T, Failure>;
}

impl<T> Attempt<T> for Result<T, Errno> {
    fn attempt(self, call: &str, subject: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|errno| Failure::System {
            call: call.to_owned(),
            subject: subject.to_string(),
            errno: errno.raw_os_error(),
        })
    }
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt(self, call: &str, subject: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::System {
            call: call.to_owned(),
            subject: subject.to_string(),
            errno: error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()),
        })
    }
}

/// Shows an error number by its name, and what it means.
struct ErrnoText(i32);

impl fmt::Display for ErrnoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let meaning = text.split(" (os error").next().unwrap_or_default();
        match errno_name(self.0) {
            Some(name) => write!(f, "{name} ({meaning})"),
            None => write!(f, "errno {} ({meaning})", self.0),
        }
    }
}

/// The names of the errors that the calls of this room give.
fn errno_name(errno: i32) -> Option<&'static str> {
    Some(match Errno::from_raw_os_error(errno) {
        Errno::ACCESS => "EACCES",
        Errno::AGAIN => "EAGAIN",
        Errno::BUSY => "EBUSY",
        Errno::DQUOT => "EDQUOT",
        Errno::EXIST => "EEXIST",
        Errno::FBIG => "EFBIG",
        Errno::INVAL => "EINVAL",
        Errno::IO => "EIO",
        Errno::ISDIR => "EISDIR",
        Errno::LOOP => "ELOOP",
        Errno::MFILE => "EMFILE",
        Errno::NAMETOOLONG => "ENAMETOOLONG",
        Errno::NODEV => "ENODEV",
        Errno::NOENT => "ENOENT",
        Errno::NOEXEC => "ENOEXEC",
        Errno::NOMEM => "ENOMEM",
        Errno::NOSPC => "ENOSPC",
        Errno::NOSYS => "ENOSYS",
        Errno::NOTDIR => "ENOTDIR",
        Errno::NOTSUP => "EOPNOTSUPP",
        Errno::NXIO => "ENXIO",
        Errno::PERM => "EPERM",
        Errno::ROFS => "EROFS",
        Errno::STALE => "ESTALE",
        Errno::TOOBIG => "E2BIG",
        Errno::TXTBSY => "ETXTBSY",
        Errno::USERS => "EUSERS",
        Errno::XDEV => "EXDEV",
        _ => return None,
    })
}
