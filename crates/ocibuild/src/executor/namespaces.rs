//! The namespaces engine: mounts and an overlay of the kernel, with real ids, a range
//! of ids or one. Nothing stands between the command and the kernel but a filter, and
//! where there is one id only, a supervisor for the others.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use super::error::Error;
use super::helper::{Helper, garbled};
use super::init::in_user_namespace;
use super::runner::Runner;
use super::supervisor::Owners;
use super::userns::IdMaps;
use super::wire::{Engine, Reply, Request, Settings};
use super::{Exit, Identity, Notes, RunSpec, Sandbox};
use crate::cancel::Cancel;
use crate::event::Stream;

/// Runs commands in namespaces of their own.
#[derive(Debug)]
pub struct Namespaces {
    runner: Runner,
    identity: Identity,
}

impl Namespaces {
    pub(super) const NAME: &str = "namespaces";

    /// An engine without a user namespace.
    pub(super) fn real(helper: &Helper) -> Self {
        let identity = Identity::Real;
        Self {
            runner: Runner::new(helper, settings(&identity)),
            identity,
        }
    }

    /// Makes the user namespace of an engine.
    pub(super) fn mapped(helper: &Helper, identity: Identity, maps: IdMaps) -> Result<Self, Error> {
        let namespace = user_namespace(helper, maps)?;
        let runner = Runner::new(helper, settings(&identity)).inside(namespace);
        Ok(Self { runner, identity })
    }

    /// The same without a process id namespace, for where /proc is partly hidden.
    pub(super) fn without_pid_namespace(self) -> Self {
        Self {
            runner: self.runner.without_pid_namespace(),
            ..self
        }
    }

    /// Does all that a command needs and runs none.
    pub(super) fn rehearse(&self, spec: &RunSpec) -> Result<(), Error> {
        self.runner.rehearse(spec)
    }
}

/// Lets a helper make a user namespace.
pub(super) fn user_namespace(helper: &Helper, maps: IdMaps) -> Result<OwnedFd, Error> {
    let mut process = helper.start(Stdio::null(), Stdio::null())?;
    process.ask(&Request::MakeUserNamespace(maps), None)?;
    match process.reply()? {
        (Reply::UserNamespace, Some(namespace)) => Ok(namespace),
        _ => Err(garbled()),
    }
}

fn settings(identity: &Identity) -> Settings {
    Settings {
        engine: Engine::Namespaces,
        owners: Owners::Recorded,
        pid_namespace: true,
        ids: identity.ids(),
        supervised: *identity == Identity::Recorded,
        rehearsal: false,
    }
}

impl Sandbox for Namespaces {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The overlay is mounted with `userxattr` in any user namespace, also in one in
    /// which the builder itself is.
    fn notes(&self) -> Notes {
        match in_user_namespace() {
            true => Notes::User,
            false => Notes::of(&self.identity),
        }
    }

    fn is_privileged(&self) -> bool {
        self.identity == Identity::Real
    }

    fn run(
        &self,
        spec: &RunSpec,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Exit, Error> {
        self.runner.run(spec, output, cancel)
    }

    fn call(&self, job: &str, input: &[u8], cancel: &Cancel) -> Result<Vec<u8>, Error> {
        self.runner.call(job, input, cancel)
    }
}
