//! The command line of the figures of the sandboxes, after the `--` of `cargo bench`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures RUN in every engine; one line of JSON per figure and engine.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Only these figures
    #[arg(long, value_enum, value_name = "NAME")]
    figure: Vec<Figure>,
    /// Only these engines, as `--sandbox` names them
    #[arg(long, value_name = "ENGINE")]
    pub(crate) engine: Vec<String>,
    /// Only these workloads of packages
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Runs of each workload
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// A Debian with the packages of the workloads in its archive [default: made with
    /// mmdebstrap from Debian's mirror, and kept in the target folder]
    #[arg(long, value_name = "TAR")]
    pub(crate) base: Option<PathBuf>,
    /// Try everything with small numbers: what comes out says nothing
    #[arg(long)]
    pub(crate) small: bool,
    /// Make trees below this folder, not in the temporary folder
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Gives the figures to take.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        match self.figure.is_empty() {
            true => Figure::value_variants().to_vec(),
            false => self.figure.clone(),
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Figure {
    /// A command that does nothing
    Trivial,
    /// Several such commands at once
    Parallel,
    /// The layer after ten of 50,000 files have changed
    Diff,
    /// Package managers, compared with a native chroot
    Packages,
}

impl Figure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trivial => "trivial",
            Self::Parallel => "parallel",
            Self::Diff => "diff",
            Self::Packages => "packages",
        }
    }
}
