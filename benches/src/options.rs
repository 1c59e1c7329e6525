//! The command line, after the `--` of `cargo bench`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures whole builds; one line of JSON per workload, builder and mode.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Make the workloads in their real sizes
    #[arg(long)]
    pub(crate) full: bool,
    /// Runs of each workload in each mode
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Only these workloads
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Only these modes
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) mode: Vec<Mode>,
    /// Take the contexts in the folders of DIR in place of our own
    #[arg(long, value_name = "DIR", requires = "registry")]
    pub(crate) workloads: Option<PathBuf>,
    /// Push to this registry, in which the bases of the contexts are
    #[arg(long, value_name = "HOST:PORT", requires = "workloads")]
    pub(crate) registry: Option<String>,
    /// Measure this builder too, in turns with ocibuild
    #[arg(long, value_enum)]
    pub(crate) peer: Vec<Peer>,
    /// Measure this ocibuild command in place of the library in this program
    #[arg(long, value_name = "PATH")]
    pub(crate) command: Option<PathBuf>,
    /// Make stores and contexts below this folder, not in the temporary folder
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

/// A builder that is installed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// `docker build` with BuildKit; the daemon is that of DOCKER_HOST, and it loses all
    /// that it has stored
    Docker,
    /// `buildah build --layers` with a store of its own
    Buildah,
}

/// What a builder knows before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Nothing: its store is empty
    Cold,
    /// All of the build before, which was the same
    Unchanged,
    /// All of the build before; since then one line of one file has changed
    Edited,
    /// The base, unpacked, but no step
    Base,
    /// All of the build before, over another version of its base
    #[value(skip)]
    Rebased,
}

impl Mode {
    /// All modes but the last, in the order in which one run goes through them.
    pub(crate) const ALL: [Self; 4] = [Self::Cold, Self::Unchanged, Self::Edited, Self::Base];

    /// Gives the name that reports use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Unchanged => "unchanged",
            Self::Edited => "edited",
            Self::Base => "base",
            Self::Rebased => "rebased",
        }
    }
}
