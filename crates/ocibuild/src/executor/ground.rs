//! Where a command's root file system is: mounted for it, or merged in a plain directory.

use std::path::Path;

use super::error::Failure;
use super::place::Made;
use super::root::Root;
use super::supervisor::{Owners, Plan, View};
use super::tree::Tree;
use super::wire::{Engine, Settings};
use super::{MountSource, RunSpec};

/// A root file system, prepared by the helper.
pub(super) enum Ground {
    /// An overlay in a mount namespace of the helper's.
    Mounted(Root),
    /// A directory of its own.
    Plain(Box<Tree>),
}

impl Ground {
    /// Prepares it.
    pub(super) fn prepare(
        spec: &RunSpec,
        settings: Settings,
        pool: Option<&Path>,
    ) -> Result<Self, Failure> {
        match settings.engine {
            Engine::Namespaces => {
                let root = Root::mount(spec)?;
                if settings.rehearsal {
                    root.check_removal()?;
                }
                Ok(Self::Mounted(root))
            }
            Engine::Chroot | Engine::Emulation => {
                Ok(Self::Plain(Box::new(Tree::prepare(spec, settings, pool)?)))
            }
        }
    }

    /// What a supervisor does for the command.
    pub(super) fn plan(&self, spec: &RunSpec) -> Result<Plan, Failure> {
        match self {
            Self::Mounted(_) => Ok(Plan {
                view: View::Mounts,
                root: None,
                owners: Owners::Recorded,
                binds: Vec::new(),
                folder: None,
                originals: None,
                network: spec.network,
                hostname: spec.hostname.clone(),
            }),
            Self::Plain(tree) => tree.plan(spec),
        }
    }

    /// Whether the command's threads have to be traced.
    pub(super) fn is_traced(&self) -> bool {
        matches!(self, Self::Plain(tree) if tree.view() == View::Translated)
    }

    /// Leaves nothing of a command whose changes nobody wants.
    pub(super) fn abandon(self, made: &[Made]) -> Result<(), Failure> {
        match self {
            Self::Mounted(root) => root.clean_up(made),
            Self::Plain(tree) => tree.abandon(),
        }
    }

    /// Leaves the changes in the upper directory, and nothing else of the command.
    /// Nobody uses the root any more; `made` was made in it for mounts.
    pub(super) fn finish(self, made: &[Made]) -> Result<(), Failure> {
        match self {
            Self::Mounted(root) => root.clean_up(made),
            Self::Plain(tree) => tree.finish(),
        }
    }
}

impl Settings {
    /// How a command sees files. In a plain directory the kernel can neither execute what
    /// is shown from elsewhere, nor enter its directories, so then all paths are translated.
    pub(super) fn view(self, spec: &RunSpec) -> View {
        let is_looked_at_only = |source: &MountSource| matches!(source, MountSource::File { mode, .. } if mode & 0o111 == 0);
        match self.engine {
            Engine::Namespaces => View::Mounts,
            Engine::Emulation => View::Translated,
            Engine::Chroot => {
                if spec
                    .mounts
                    .iter()
                    .all(|mount| is_looked_at_only(&mount.source))
                {
                    View::Chroot
                } else {
                    View::Translated
                }
            }
        }
    }
}
