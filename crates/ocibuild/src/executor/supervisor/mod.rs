//! What stands between a step and the kernel where the kernel alone would not do: an
//! answer to the system calls that the step's filter hands over.
//!
//! Enters: a [`Plan`] and the listener of a filter made by [`Plan::rules`]. Threads of the
//! helper process then answer calls until the step has ended. A process of the step is one
//! user for the kernel, always; who it is meant to be ([`credentials`]), whose its files
//! are (`crate::ownership`) and, in views without mounts, which file a path leads to, are
//! decided here.
//!
//! This is emulation. What keeps a step from the machine is what the kernel refuses to
//! the one user that it runs as: a program that races with an answer gains nothing but
//! what the kernel allows it anyway.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Attempt, Failure};
use super::seccomp::Action;
use super::{Network, caps, confine, sys};

mod access;
mod attributes;
mod call;
mod calls;
mod change;
mod cookie;
mod credentials;
mod devices;
mod exec;
mod guest;
mod identities;
mod ids;
mod loopback;
mod make;
mod network;
mod open;
mod owners;
mod proc;
mod reach;
mod remove;
mod resolve;
mod roots;
mod seen;
mod signals;
mod status;
mod traced;
mod tree;
mod unix;
mod walk;

use call::{Answer, Call, Fault};
pub(super) use cookie::kill_orphans;
use cookie::{Cookie, StepId};
use credentials::Credentials;
use guest::Guest;
use identities::Identities;
pub(super) use loopback::Served;
use resolve::Origin;
use roots::Roots;
pub(super) use traced::Program;
use tree::{Place, Tree};

/// How a step sees files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// By mounts of its own; paths are right as they are.
    Mounts,
    /// By chroot into a plain tree, which has no mounts in it.
    Chroot,
    /// Not at all: each path is looked up in a plain tree for it.
    Translated,
}

/// Where owners of files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Owners {
    /// Beside the file, as `crate::ownership` keeps them.
    Recorded,
    /// On the disk.
    Real,
}

/// Something of the builder that the step sees at a place of its own.
#[derive(Debug)]
pub(super) struct Bind {
    /// Where the step sees it: absolute, without links, `.` and `..`.
    pub(super) target: PathBuf,
    /// What is there: opened with `O_PATH`.
    pub(super) source: OwnedFd,
    /// Whether the step may write to it.
    pub(super) writable: bool,
}

/// What the copies of programs are copies of, where the kernel runs such.
pub(super) trait Originals: std::fmt::Debug + Send + Sync {
    /// The file that a copy was made of; both as they are called on the machine.
    fn of(&self, copy: &Path) -> Option<PathBuf>;
}

/// What is to be supervised, and how.
#[derive(Debug)]
pub(super) struct Plan {
    /// How files are seen.
    pub(super) view: View,
    /// The root directory of the step where it has no mounts; with mounts it is that of
    /// the step's first process.
    pub(super) root: Option<PathBuf>,
    /// Where owners are.
    pub(super) owners: Owners,
    /// What the step sees beside its root, where it has no mounts. Later ones cover
    /// earlier ones, and the /dev, /proc and /sys that there are in any case.
    pub(super) binds: Vec<Bind>,
    /// An empty folder of the step's own for its /dev, where it has no mounts.
    pub(super) folder: Option<PathBuf>,
    /// What the kernel runs in place of the step's programs, if it does.
    pub(super) originals: Option<Arc<dyn Originals>>,
    /// Whether connections can be made.
    pub(super) network: Network,
    /// The name of the machine, where the step has no other of its own.
    pub(super) hostname: String,
}

impl Plan {
    /// What the step's filter is to do with which call.
    pub(super) fn rules(&self) -> Vec<(&'static str, Action)> {
        calls::rules(self.view, self.owners, self.network)
    }
}

/// What all threads that answer share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    listener: OwnedFd,
    step: StepId,
    /// Its first process.
    first: i32,
    /// What is seen where, in views without mounts.
    tree: Option<Tree>,
    roots: Roots,
    /// Whose rights this process has on files.
    own: Rights,
    /// Held while the list of processes is made.
    listing: Mutex<()>,
    /// The machine's /proc, in which every process of the step is found.
    proc: OwnedFd,
    /// The root directory of the step.
    root: OwnedFd,
    /// Whether the step has made files that stand for devices.
    devices: AtomicBool,
    identities: Identities,
    /// Sockets of the internet, where the step has no network.
    sockets: Option<loopback::Sockets>,
    coming: unix::Coming,
    memory: Memory,
    /// Which call is answered how, by number.
    handlers: HashMap<u32, calls::Serve>,
}

impl Shared {
    fn tree(&self) -> Result<&Tree, Errno> {
        self.tree.as_ref().ok_or(Errno::NOENT)
    }

    /// What a copy of a program was made of.
    fn original(&self, copy: &Path) -> Option<PathBuf> {
        self.plan.originals.as_ref()?.of(copy)
    }

    fn note_device(&self) {
        self.devices.store(true, Ordering::Relaxed);
    }

    fn has_devices(&self) -> bool {
        self.devices.load(Ordering::Relaxed)
    }
}

/// Whose rights a process has on files.
#[derive(Debug)]
struct Rights {
    user: u32,
    group: u32,
    groups: Vec<u32>,
}

impl Rights {
    fn now() -> Self {
        let groups = rustix::process::getgroups().unwrap_or_default();
        Self {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
            groups: groups
                .into_iter()
                .map(rustix::process::Gid::as_raw)
                .collect(),
        }
    }
}

/// How memory of the step is reached.
#[derive(Debug)]
struct Memory {
    direct: AtomicBool,
}

impl Memory {
    fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    fn use_files(&self) {
        self.direct.store(false, Ordering::Relaxed);
    }
}

/// A step that is being supervised.
#[derive(Debug, Clone)]
pub(super) struct Supervisor {
    shared: Arc<Shared>,
}

impl Supervisor {
    /// Begins to answer calls. `first` is the first process of the step, which has
    /// entered its root and waits to become the command.
    ///
    /// From here on this process has threads, so it must not fork any more.
    /// Its umask is 0 then.
    pub(super) fn start(mut plan: Plan, listener: OwnedFd, first: Pid) -> Result<Self, Failure> {
        // Kernels before 6.6 switch more slowly.
        let _ = sys::wake_synchronously(listener.as_fd());
        let proc = openat(
            CWD,
            "/proc",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .attempt("open", "/proc")?;
        let root = match &plan.root {
            Some(root) => root.display().to_string(),
            None => format!("/proc/{first}/root"),
        };
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &root, directory, Mode::empty()).attempt("open", root)?;
        let tree = tree(&mut plan, &root)?;
        rustix::process::umask(Mode::empty());
        let step = StepId::new();
        match Cookie::default().give(first.as_raw_nonzero().get(), step) {
            // Killed already.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => Err(errno).attempt("prlimit", "RLIMIT_LOCKS")?,
        }
        let shared = Shared {
            root,
            tree,
            step,
            first: first.as_raw_nonzero().get(),
            roots: Roots::default(),
            own: Rights::now(),
            listing: Mutex::new(()),
            devices: AtomicBool::new(false),
            handlers: calls::handlers(),
            identities: Identities::new(Credentials::root(caps::DEFAULT.bits())),
            sockets: (plan.network == Network::None && confine::forbids_tcp())
                .then(loopback::Sockets::default),
            coming: unix::Coming::default(),
            memory: Memory {
                direct: AtomicBool::new(true),
            },
            plan,
            listener,
            proc,
        };
        let shared = Arc::new(shared);
        let serving = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || serve(&serving))
            .attempt("clone", "a thread of the supervisor")?;
        Ok(Self { shared })
    }
}

/// What is seen where, if there are no mounts.
fn tree(plan: &mut Plan, root: &OwnedFd) -> Result<Option<Tree>, Failure> {
    if plan.view == View::Mounts {
        return Ok(None);
    }
    let mut places = match &plan.folder {
        Some(folder) => devices::places(folder, plan.owners, plan.network)?,
        None => Vec::new(),
    };
    for bind in plan.binds.drain(..) {
        let writable = bind.writable;
        let shown = bind.target.display().to_string();
        if let Some(folder) = &plan.folder {
            devices::make_target(folder, &bind)?;
        }
        let place = Place::new(bind.target, bind.source, Origin::Bind { writable });
        places.push(place.attempt("readlink", shown)?);
    }
    Tree::new(root, places)
        .attempt("readlink", "the root")
        .map(Some)
}

/// Answers calls until nobody is left who could make one.
fn serve(shared: &Arc<Shared>) {
    let listener = shared.listener.as_fd();
    loop {
        match sys::receive(listener) {
            Ok(notification) => answer(shared, notification),
            // The caller was killed meanwhile, or all have ended.
            Err(Errno::NOENT) if !has_hung_up(listener) => {}
            // A signal came to this thread, or too many files are open.
            Err(Errno::INTR | Errno::NOMEM) => {}
            Err(_) => return,
        }
    }
}

fn has_hung_up(listener: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(listener, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let done = rustix::event::poll(&mut polled, Some(&now));
    let [listener] = polled;
    done.is_ok() && listener.revents().contains(PollFlags::HUP)
}

/// Gives the caller an open file as the value of its call. One that can be written to is
/// closed here before the caller goes on, who could not execute it else (ETXTBSY).
fn hand_over(
    listener: BorrowedFd<'_>,
    id: u64,
    file: OwnedFd,
    close_on_exec: bool,
) -> rustix::io::Result<()> {
    let access = rustix::fs::fcntl_getfl(&file)? & OFlags::RWMODE;
    if access == OFlags::RDONLY {
        return sys::give_descriptor(listener, id, file, close_on_exec, true).map(drop);
    }
    let number = sys::give_descriptor(listener, id, &file, close_on_exec, false)?;
    drop(file);
    sys::answer(listener, id, Ok(i64::from(number)))
}

/// Answers one call. A caller that is gone needs no answer.
fn answer(shared: &Arc<Shared>, notification: sys::Notification) {
    let (listener, id) = (shared.listener.as_fd(), notification.id);
    shared.settle_sockets(notification.pid);
    let outcome = match Guest::calling(shared, &notification) {
        Ok(guest) => {
            let call = Call {
                guest,
                notification,
            };
            match shared.handlers.get(&notification.number) {
                Some(handler) => handler(&call),
                None => Ok(Answer::Continue),
            }
        }
        Err(errno) => Err(Fault::Errno(errno)),
    };
    // It fails where the caller is gone, which is all the same.
    let _ = match outcome {
        Ok(Answer::Continue) | Err(Fault::Continue) => sys::let_continue(listener, id),
        Ok(Answer::Value(value)) => sys::answer(listener, id, Ok(value)),
        Err(Fault::Errno(errno)) => sys::answer(listener, id, Err(errno)),
        Ok(Answer::Descriptor {
            file,
            close_on_exec,
        }) => match hand_over(listener, id, file, close_on_exec) {
            Err(errno) if !sys::is_gone(errno) => sys::answer(listener, id, Err(errno)),
            other => other,
        },
        Ok(Answer::Later) => Ok(()),
    };
}
