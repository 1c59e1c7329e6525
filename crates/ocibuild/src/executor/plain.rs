//! The engines for where nothing can be mounted: a command works in a plain directory in
//! which its layers are merged, and a supervisor shows it what else there is. Users are
//! emulated, since a process of another user could not be supervised.
//!
//! - `chroot` as root with the capabilities of an ordinary container: owners are real.
//! - `chroot` in a user namespace of one id, for where mounts are denied there too, as by
//!   AppArmor: owners are recorded.
//! - `emulation` needs nothing. The kernel knows one user and one root directory, that of
//!   the builder; all else is translated and recorded.

use std::path::Path;

use super::error::Error;
use super::helper::Helper;
use super::namespaces::user_namespace;
use super::runner::Runner;
use super::supervisor::Owners;
use super::userns::IdMaps;
use super::wire::{Engine, Settings};
use super::{Exit, Identity, Notes, RunSpec, Sandbox, confine};
use crate::cancel::Cancel;
use crate::event::Stream;

/// Name of the engine with a root directory of its own.
pub(super) const CHROOT: &str = "chroot";
/// Name of the engine with translated paths.
pub(super) const EMULATION: &str = "emulation";

/// Folder of merged trees in the work directory.
const POOL: &str = "merged";

/// Runs commands in a plain directory.
#[derive(Debug)]
pub struct Plain {
    runner: Runner,
    name: &'static str,
    identity: Identity,
}

impl Plain {
    /// With a root directory of its own, as root. Trees wait below `work_dir` for the
    /// next command of their chain.
    pub(super) fn chroot(helper: &Helper, work_dir: &Path) -> Self {
        Self {
            runner: runner(helper, work_dir, Engine::Chroot, Owners::Real),
            name: CHROOT,
            identity: Identity::Real,
        }
    }

    /// The same in a user namespace that has these ids.
    pub(super) fn mapped_chroot(
        helper: &Helper,
        work_dir: &Path,
        maps: IdMaps,
    ) -> Result<Self, Error> {
        let namespace = user_namespace(helper, maps)?;
        let runner = runner(helper, work_dir, Engine::Chroot, Owners::Recorded);
        Ok(Self {
            runner: runner.inside(namespace),
            name: CHROOT,
            identity: Identity::Recorded,
        })
    }

    /// With translated paths.
    pub(super) fn emulation(helper: &Helper, work_dir: &Path) -> Self {
        Self {
            runner: runner(helper, work_dir, Engine::Emulation, Owners::Recorded),
            name: EMULATION,
            identity: Identity::Recorded,
        }
    }

    /// Does all that a command needs and runs none.
    pub(super) fn rehearse(&self, spec: &RunSpec) -> Result<(), Error> {
        self.runner.rehearse(spec)
    }
}

fn runner(helper: &Helper, work_dir: &Path, engine: Engine, owners: Owners) -> Runner {
    let settings = Settings {
        engine,
        owners,
        pid_namespace: false,
        ids: u32::MAX,
        supervised: true,
        rehearsal: false,
    };
    Runner::new(helper, settings).with_pool(work_dir.join(POOL))
}

impl Sandbox for Plain {
    fn name(&self) -> &'static str {
        self.name
    }

    fn identity(&self) -> &Identity {
        &self.identity
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
        // The command is of the builder's own user, and sees its process.
        confine::hide_memory().map_err(Error::Refused)?;
        self.runner.run(spec, output, cancel)
    }

    fn call(&self, job: &str, input: &[u8], cancel: &Cancel) -> Result<Vec<u8>, Error> {
        self.runner.call(job, input, cancel)
    }
}
