//! One command over one root file system. Knows nothing of Dockerfiles: a
//! [`RunSpec`] comes in, an [`Exit`] goes out, and what the command changed is in
//! the upper directory.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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

/// A file or directory of the builder that the command sees at a place of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Where it is on the builder.
    pub source: PathBuf,
    /// Where the command sees it; absolute.
    pub target: PathBuf,
    /// Whether the command may write to it.
    pub writable: bool,
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
    /// Working directory, created where it is missing.
    pub cwd: String,
    /// `USER` of the image configuration: empty for root, else `user[:group]` by name or number.
    pub user: String,
    /// Host name.
    pub hostname: String,
    /// Network.
    pub network: Network,
    /// Further mounts.
    pub mounts: Vec<BindMount>,
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

/// Whose ids a command and the trees made for it have; trees made for one
/// identity are not valid for another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Ids on disk are the ids in the image.
    Real,
    /// A user namespace with a range: id 0 is this user, 1 and up begin at `first`.
    Range {
        /// First id of the range on the machine.
        first: u32,
        /// How many ids there are.
        count: u32,
    },
    /// A user namespace with one id: everything belongs to root.
    Single,
}
