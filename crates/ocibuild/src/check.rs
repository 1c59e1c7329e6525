//! What can be said about a Dockerfile without building it: build checks, the parameters
//! of a target, the list of targets. They are what `docker buildx build --call` shows.

use std::sync::Arc;

use serde::Serialize;

use crate::build::Build;
use crate::engine;
use crate::error::Error;
use crate::event::CheckWarning;

/// The result of the checks of a Dockerfile.
#[derive(Debug)]
#[non_exhaustive]
pub struct Checked {
    /// The name of the Dockerfile.
    pub file: String,
    /// Its text.
    pub text: Arc<str>,
    /// The warnings, in the order of the file.
    pub warnings: Vec<CheckWarning>,
    /// Why it cannot be built, where that is so.
    pub error: Option<Error>,
    /// Base images that could not be loaded, each with the reason; what depends on their
    /// variables was not checked.
    pub unknown_bases: Vec<String>,
}

/// Where something stands, in lines from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// The first line.
    pub first: usize,
    /// The last line.
    pub last: usize,
}

/// The parameters of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// The name of the target, empty where it has none.
    pub name: String,
    /// What the comment above it says.
    pub description: String,
    /// Build arguments that the target and what it needs use.
    pub args: Vec<OutlineArg>,
    /// Secrets that its commands mount.
    pub secrets: Vec<OutlineMount>,
    /// SSH agents that its commands mount.
    pub ssh: Vec<OutlineMount>,
    /// Caches that its commands mount.
    pub caches: Vec<OutlineMount>,
}

/// A build argument of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The value that it has without more being given.
    pub value: String,
    /// What the comment above it says.
    pub description: String,
    /// Where it is declared.
    pub lines: Lines,
}

/// Something that a command mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its identifier.
    pub id: String,
    /// The command fails without it.
    pub required: bool,
    /// Where it is mounted first.
    pub lines: Lines,
}

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, empty where it has none.
    pub name: String,
    /// What the comment above it says.
    pub description: String,
    /// It is built where no target is named.
    pub is_default: bool,
    /// The base as FROM names it, not expanded.
    pub base: String,
    /// The platform as FROM names it, not expanded.
    pub platform: String,
    /// Where its FROM stands.
    pub lines: Lines,
}

/// A Dockerfile and what it was asked for.
#[derive(Debug, Clone)]
pub struct Found<T> {
    /// The name of the Dockerfile.
    pub file: String,
    /// Its text.
    pub text: Arc<str>,
    /// The answer.
    pub answer: T,
}

impl Build {
    /// Checks the Dockerfile in place of building it: all stages, or what a target needs.
    ///
    /// The configurations of base images are loaded, because they say which variables are
    /// set, unless `offline`. An error is returned where there is no Dockerfile to check.
    pub async fn check(self, offline: bool) -> Result<Checked, Error> {
        engine::check::run(self, offline).await
    }

    /// Gives the parameters of the target in place of building it.
    pub async fn outline(self) -> Result<Found<Outline>, Error> {
        engine::check::with_plan(self, crate::graph::outline::outline).await
    }

    /// Gives the stages that can be built.
    pub async fn targets(self) -> Result<Found<Vec<Target>>, Error> {
        engine::check::with_plan(self, crate::graph::outline::targets).await
    }
}
