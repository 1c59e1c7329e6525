//! One command over one root file system. Knows nothing of Dockerfiles: a
//! [`RunSpec`] comes in, an [`Exit`] goes out, and what the command changed is in
//! the upper directory.
//!
//! The builder has threads, so it never forks. For each command it starts a helper,
//! a program whose `main` begins with [`crate::init`], and talks to it over a socket:
//!
//! ```text
//! builder ── socket, two pipes ──> helper            enters the user namespace, mounts the overlay,
//!                                    │               waits, kills, cleans up
//!                                    └── fork ──> the command   pid 1 of its own namespaces
//! ```
//!
//! If the builder goes away, however it does, the socket closes and the helper kills
//! the command; if the helper goes away the kernel does.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::event::Stream;
use crate::secret::Hidden;

pub mod binfmt;
mod caps;
mod child;
mod choice;
mod confine;
mod error;
mod ground;
mod helper;
mod host;
pub(crate) mod init;
mod listener;
mod mounts;
mod namespaces;
mod notes;
mod oom;
mod place;
mod plain;
pub mod probe;
pub(crate) mod remove;
mod root;
mod runner;
mod seccomp;
mod supervise;
mod supervisor;
mod sys;
#[cfg(test)]
mod tests;
mod traced;
mod tracer;
mod tree;
mod user;
mod userns;
mod wire;

pub use choice::{Choice, UnknownSandbox};
pub use error::{Error, Failure};
pub use helper::Helper;
pub use init::{Job, overlay_xattr_prefix};
pub use namespaces::Namespaces;
pub use notes::Notes;
pub use oom::memory_kills;
pub use plain::Plain;
pub use remove::REMOVE_TREE;

/// One way to run commands, with one kind of identity.
pub trait Sandbox: Send + Sync {
    /// Name of the engine, as `check-host` and logs show it.
    fn name(&self) -> &'static str;

    /// Whose ids the commands and the trees made for them have.
    fn identity(&self) -> &Identity;

    /// Where overlay notes stand in the trees made for the commands.
    fn notes(&self) -> Notes {
        Notes::of(self.identity())
    }

    /// Whether commands can have all rights of root on this machine.
    fn is_privileged(&self) -> bool {
        false
    }

    /// Runs one command and gives what it prints to `output`, as it comes.
    ///
    /// When this returns, nothing that the command started is alive, the upper
    /// directory is complete, and the work directory is empty. The kernel may take some
    /// milliseconds more to forget the mounts.
    fn run(
        &self,
        spec: &RunSpec,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Exit, Error>;

    /// Runs a function of this program in a process of its own, as root among the ids
    /// of [`Sandbox::identity`] and with the builder's view of the file system.
    ///
    /// This is how layers are unpacked and upper directories read with right owners.
    fn call(&self, job: &str, input: &[u8], cancel: &Cancel) -> Result<Vec<u8>, Error>;
}

/// What network a command sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The network of the machine.
    #[default]
    Host,
    /// A loopback interface and nothing else.
    None,
}

/// The root file system of a command: read-only directories, and one that takes the changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Unpacked layers, lowest first; each holds whiteouts in overlayfs form.
    pub lowers: Vec<PathBuf>,
    /// An empty directory that holds the changes afterwards, in overlayfs form.
    pub upper: PathBuf,
    /// An empty directory on the same file system, for the kernel's own use.
    pub work: PathBuf,
}

/// Something that the command sees at a place of its own and that never is in the layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where the command sees it; absolute, symbolic links are followed inside the root.
    pub target: PathBuf,
    /// What is there.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the builder.
    Bind {
        /// Where it is on the builder.
        path: PathBuf,
        /// Whether the command may write to it.
        writable: bool,
    },
    /// A file or directory of other layers than the root's.
    Layers {
        /// Unpacked layers, lowest first, as in [`Rootfs`].
        lowers: Vec<PathBuf>,
        /// Which one: absolute, symbolic links are followed inside of the layers.
        path: PathBuf,
        /// Where what the command writes there is kept until it is thrown away; it cannot
        /// write where nothing is said.
        writes: Option<Writes>,
    },
    /// A file that exists in memory only and cannot be written: a secret, `/etc/hosts`.
    File {
        /// What is in it.
        content: Hidden,
        /// Permission bits.
        mode: u32,
        /// Owner, as the command sees it.
        uid: u32,
        /// Group, as the command sees it.
        gid: u32,
    },
    /// A socket of the builder, made for this command.
    Socket {
        /// Where it is on the builder.
        path: PathBuf,
        /// Permission bits that it gets.
        mode: u32,
        /// Owner that it gets, as the command sees it.
        uid: u32,
        /// Group that it gets, as the command sees it.
        gid: u32,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// How many bytes it may hold; half of the machine's memory where it is not said.
        size: Option<u64>,
    },
}

/// Two empty directories on the same file system as those of the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writes {
    /// Holds the changes afterwards.
    pub upper: PathBuf,
    /// For the kernel's own use.
    pub work: PathBuf,
}

/// One command and everything that it sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment; `HOME` is added from /etc/passwd where it is missing.
    pub env: Vec<(String, String)>,
    /// Variables whose values are secret; they win over those of `env`.
    #[serde(default)]
    pub secret_env: Vec<(String, Hidden)>,
    /// Working directory, created where it is missing.
    pub cwd: String,
    /// `USER` of the image configuration: empty for root, else `user[:group]` by name or number.
    pub user: String,
    /// Host name.
    pub hostname: String,
    /// Network.
    pub network: Network,
    /// Whether it keeps all capabilities, has no filter, and nothing of `/proc` and `/sys`
    /// is hidden or fixed: what `RUN --security=insecure` means.
    #[serde(default)]
    pub privileged: bool,
    /// Further mounts, in the order in which they are made; `/etc/hosts` and
    /// `/etc/resolv.conf` are among them.
    pub mounts: Vec<Mount>,
    /// Whether fsync and its kin reach the disk. Off, they succeed at once: the root
    /// file system of a step is thrown away if the machine stops before the layer is written.
    pub sync: bool,
}

impl RunSpec {
    /// The search path of a command whose image says nothing of one.
    pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

    /// Describes a command that runs as root in `/`, with the machine's network.
    pub fn new(rootfs: Rootfs, argv: Vec<String>) -> Self {
        Self {
            rootfs,
            argv,
            env: vec![("PATH".into(), Self::DEFAULT_PATH.into())],
            secret_env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
            hostname: "buildkitsandbox".into(),
            network: Network::Host,
            privileged: false,
            mounts: Vec::new(),
            sync: false,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended with this status.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The kernel ended it because memory ran out.
    OutOfMemory,
}

/// Consecutive ids on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdRange {
    /// The lowest.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// Whose ids a command and the trees made for it have; trees made for one
/// identity are not valid for another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Ids on disk are the ids in the image.
    Real,
    /// A user namespace with ranges: id 0 is this user, 1 and up begin at `first`.
    Range {
        /// Users.
        uids: IdRange,
        /// Groups.
        gids: IdRange,
    },
    /// A user namespace with one id: everything belongs to root.
    Single,
    /// Everything on the disk belongs to the builder; owners, devices and what else it
    /// may not set are recorded beside the files (see [`crate::ownership`]).
    Recorded,
}

impl Identity {
    /// Tells whether files on the disk have owners of their own, not the builder alone.
    pub(crate) fn has_owners(&self) -> bool {
        match self {
            Self::Real | Self::Range { .. } => true,
            Self::Single | Self::Recorded => false,
        }
    }

    /// Gives how many ids there are, from 0 on.
    pub fn ids(&self) -> u32 {
        match self {
            Self::Real | Self::Recorded => u32::MAX,
            Self::Range { uids, gids } => uids.count.min(gids.count).saturating_add(1),
            Self::Single => 1,
        }
    }
}
