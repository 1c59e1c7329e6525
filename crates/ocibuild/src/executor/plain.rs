//! The engines for where nothing can be mounted: a command works in a plain directory in
//! which its layers are merged, and a supervisor shows it what else there is.
//!
//! [`Chroot`] needs root with the capabilities of an ordinary container. Owners are real;
//! users are emulated, since a process of another user could not be supervised.
//! [`Emulation`] needs nothing. The kernel knows one user and one root directory, that of
//! the builder; all else is translated and recorded.

use std::path::Path;

use super::error::Error;
use super::helper::Helper;
use super::runner::Runner;
use super::wire::{Engine, Settings};
use super::{Exit, Identity, Notes, RunSpec, Sandbox, confine};
use crate::cancel::Cancel;
use crate::event::Stream;

/// Folder of merged trees in the work directory.
const POOL: &str = "merged";

/// Runs commands in a root directory of their own.
#[derive(Debug)]
pub struct Chroot(Runner);

/// Runs commands with paths, users and owners that are emulated.
#[derive(Debug)]
pub struct Emulation(Runner);

impl Chroot {
    pub(super) const NAME: &str = "chroot";

    /// Trees wait below `work_dir` for the next command of their chain.
    pub(super) fn new(helper: &Helper, work_dir: &Path) -> Self {
        Self(runner(helper, work_dir, Engine::Chroot))
    }

    /// Does all that a command needs and runs none.
    pub(super) fn rehearse(&self, spec: &RunSpec) -> Result<(), Error> {
        self.0.rehearse(spec)
    }
}

impl Emulation {
    pub(super) const NAME: &str = "emulation";

    /// Trees wait below `work_dir` for the next command of their chain.
    pub(super) fn new(helper: &Helper, work_dir: &Path) -> Self {
        Self(runner(helper, work_dir, Engine::Emulation))
    }

    /// Does all that a command needs and runs none.
    pub(super) fn rehearse(&self, spec: &RunSpec) -> Result<(), Error> {
        self.0.rehearse(spec)
    }
}

fn runner(helper: &Helper, work_dir: &Path, engine: Engine) -> Runner {
    let settings = Settings {
        engine,
        pid_namespace: false,
        ids: u32::MAX,
        supervised: true,
        rehearsal: false,
    };
    Runner::new(helper, settings).with_pool(work_dir.join(POOL))
}

impl Sandbox for Chroot {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn identity(&self) -> &Identity {
        &Identity::Real
    }

    /// Not every container may set the other kind.
    fn notes(&self) -> Notes {
        Notes::User
    }

    fn run(
        &self,
        spec: &RunSpec,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Exit, Error> {
        hide()?;
        self.0.run(spec, output, cancel)
    }

    fn call(&self, job: &str, input: &[u8], cancel: &Cancel) -> Result<Vec<u8>, Error> {
        self.0.call(job, input, cancel)
    }
}

impl Sandbox for Emulation {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn identity(&self) -> &Identity {
        &Identity::Recorded
    }

    fn run(
        &self,
        spec: &RunSpec,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Exit, Error> {
        hide()?;
        self.0.run(spec, output, cancel)
    }

    fn call(&self, job: &str, input: &[u8], cancel: &Cancel) -> Result<Vec<u8>, Error> {
        self.0.call(job, input, cancel)
    }
}

/// The command is of the builder's own user, and sees its process.
fn hide() -> Result<(), Error> {
    confine::hide_memory().map_err(Error::Refused)
}
