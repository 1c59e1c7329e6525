//! The engines for where nothing can be mounted: a command works in a plain directory in
//! which its layers are merged, and a supervisor shows it what else there is.
//!
//! `chroot` needs root with the capabilities of an ordinary container. Owners are real;
//! users are emulated, since a process of another user could not be supervised.
//! `emulation` needs nothing. The kernel knows one user and one root directory, that of
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

/// Runs commands in a plain directory.
#[derive(Debug)]
pub struct Plain {
    runner: Runner,
    view: PlainView,
}

/// How the directory becomes the root of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlainView {
    /// It is changed to.
    Chroot,
    /// Paths, users and owners are emulated.
    Emulation,
}

impl PlainView {
    /// The name of the engine.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Chroot => "chroot",
            Self::Emulation => "emulation",
        }
    }
}

impl Plain {
    /// Trees wait below `work_dir` for the next command of their chain.
    pub(super) fn new(view: PlainView, helper: &Helper, work_dir: &Path) -> Self {
        let settings = Settings {
            engine: match view {
                PlainView::Chroot => Engine::Chroot,
                PlainView::Emulation => Engine::Emulation,
            },
            pid_namespace: false,
            ids: u32::MAX,
            supervised: true,
            rehearsal: false,
        };
        let runner = Runner::new(helper, settings).with_pool(work_dir.join(POOL));
        Self { runner, view }
    }

    /// Does all that a command needs and runs none.
    pub(super) fn rehearse(&self, spec: &RunSpec) -> Result<(), Error> {
        self.runner.rehearse(spec)
    }
}

impl Sandbox for Plain {
    fn name(&self) -> &'static str {
        self.view.name()
    }

    fn identity(&self) -> &Identity {
        match self.view {
            PlainView::Chroot => &Identity::Real,
            PlainView::Emulation => &Identity::Recorded,
        }
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
