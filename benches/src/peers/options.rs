//! The command line of the comparison, after the `--` of `cargo bench`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;

use super::recipe::{self, Recipe};

/// Measures ocibuild and every other builder that is installed, in turns; prints tables.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Make the workloads in their real sizes
    #[arg(long)]
    pub(crate) full: bool,
    /// Runs of each workload in each mode
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Only these workloads
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Only these peers, `none` for no peer [default: all that are on PATH]
    #[arg(long, value_name = "NAME")]
    pub(crate) peer: Vec<String>,
    /// Another peer: a script for `sh` that builds the folder $CONTEXT, pushes it as $IMAGE, and
    /// keeps what it knows below $STORE
    #[arg(long, value_name = "NAME=SCRIPT")]
    pub(crate) other: Vec<String>,
    /// Take the contexts in the folders of DIR; their Dockerfiles write REGISTRY for the registry
    #[arg(long, value_name = "DIR", requires = "bases")]
    pub(crate) workloads: Option<PathBuf>,
    /// Push the OCI layouts in the folders of DIR into the registry, under the names of the folders
    #[arg(long, value_name = "DIR")]
    pub(crate) bases: Option<PathBuf>,
    /// Measure this ocibuild command in place of the library in this program
    #[arg(long, value_name = "PATH")]
    pub(crate) command: Option<PathBuf>,
    /// Make stores and contexts below this folder, not in the temporary folder
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    /// Write one line of JSON for each workload, builder and mode into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Gives how the builders that are compared are called, ocibuild first.
    pub(crate) fn recipes(&self) -> Result<Vec<Recipe>> {
        let program = match &self.command {
            Some(program) => program.clone(),
            None => std::env::current_exe()?,
        };
        let program = program
            .to_str()
            .context("the path of ocibuild is no text")?;
        let mut recipes = vec![recipe::ocibuild(program)];
        for peer in recipe::peers() {
            let is_asked = self.peer.contains(&peer.name);
            if is_asked || self.peer.is_empty() && peer.is_installed() {
                ensure!(peer.is_installed(), "{} is not on PATH", peer.name);
                recipes.push(peer);
            }
        }
        for other in &self.other {
            let Some((name, script)) = other.split_once('=') else {
                bail!("--other {other:?} is not NAME=SCRIPT");
            };
            recipes.push(recipe::other(name, script));
        }
        for name in self.peer.iter().filter(|name| *name != "none") {
            let is_known = recipes.iter().any(|recipe| recipe.name == *name);
            ensure!(is_known, "there is no peer {name:?}");
        }
        Ok(recipes)
    }
}
