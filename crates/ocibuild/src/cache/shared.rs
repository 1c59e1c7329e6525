//! Where the results of steps go so that others find them, and where they come from.

use std::path::PathBuf;

use crate::registry::Reference;

/// Where results of steps are looked for that the store does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheSource {
    /// In a registry: a cache that was exported there, or an image that has one in it.
    Registry(Reference),
    /// In an OCI image layout in a directory.
    Local {
        /// The directory.
        path: PathBuf,
        /// The tag in its index; without one it must hold one cache.
        tag: Option<String>,
    },
}

/// What of a build is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// The steps whose layers are in the image.
    #[default]
    Min,
    /// Every step.
    Max,
}

/// Where results of steps go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CachePlace {
    /// Into the image itself: its manifest says which steps gave its layers.
    Inline,
    /// To a registry, under a name of its own.
    Registry(Reference),
    /// Into an OCI image layout in a directory.
    Local {
        /// The directory.
        path: PathBuf,
        /// The tag in its index.
        tag: String,
    },
}

/// An export of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTarget {
    /// Where it goes.
    pub place: CachePlace,
    /// What is exported.
    pub mode: CacheMode,
    /// The build fails where the export does; else that is a warning.
    pub required: bool,
}

impl CacheTarget {
    /// Exports to a place; a failure is a warning.
    pub fn new(place: CachePlace, mode: CacheMode) -> Self {
        Self {
            place,
            mode,
            required: false,
        }
    }

    /// Lets the build fail where the export does.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

impl std::fmt::Display for CacheSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Local { path, .. } => path.display().fmt(f),
        }
    }
}

impl std::fmt::Display for CachePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline => f.write_str("the image"),
            Self::Registry(reference) => reference.fmt(f),
            Self::Local { path, .. } => path.display().fmt(f),
        }
    }
}

/// Why a cache was not imported or exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry.
    #[error("{doing} the cache {place}")]
    Registry {
        /// What was being done.
        doing: &'static str,
        /// The name.
        place: String,
        /// What the registry said.
        source: crate::registry::Error,
    },
    /// It is not there.
    #[error("there is no cache {0}")]
    Missing(String),
    /// What is there is no cache, or none that can be believed.
    #[error("{place} is no cache that can be used: {reason}")]
    Refused {
        /// The place.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// Reading or writing a directory.
    #[error(transparent)]
    Layout(#[from] crate::source::Error),
    /// A push.
    #[error(transparent)]
    Output(#[from] crate::output::Error),
}
