//! What a build asks for beyond the fields of Darwin's form: the value that `/v1` takes in
//! JSON, that the task table keeps, and that the worker makes a `BuildSpec` of.
//!
//! Secrets are named here and never contained: their values are the operator's files.

use std::collections::BTreeMap;

use ocibuild_store::ContextId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::spec::OutputForm;

/// Everything about a build but its application, its tag and its Git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Request {
    /// Where the files come from.
    pub(crate) context: ContextKind,
    /// Path of the Dockerfile in the context; `Dockerfile` where it is absent.
    pub(crate) dockerfile_path: Option<String>,
    /// Build arguments.
    pub(crate) args: BTreeMap<String, String>,
    /// The stage to build.
    pub(crate) target: Option<String>,
    /// The platforms to build for; more than one become an index.
    pub(crate) platforms: Vec<String>,
    /// Labels of the image.
    pub(crate) labels: BTreeMap<String, String>,
    /// Secrets that `RUN --mount=type=secret` finds.
    pub(crate) secrets: Vec<SecretReference>,
    /// Where the image goes, in place of the registries that are configured.
    pub(crate) destinations: Vec<String>,
    /// In which form it is pushed.
    pub(crate) output: OutputForm,
    /// How earlier results are used.
    pub(crate) cache: Cache,
    /// How long the build may take, in seconds, where that is less than the service allows.
    pub(crate) timeout_seconds: Option<u64>,
    /// What the build may use, where that is less than the service allows.
    pub(crate) limits: BuildLimits,
}

/// Where the files of a build come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ContextKind {
    /// The Git repository of the task.
    #[default]
    Git,
    /// A file behind an HTTP URL.
    Http {
        /// Its URL, without credentials.
        url: String,
    },
    /// The files of an OCI artifact.
    Oci {
        /// Its name.
        reference: String,
    },
    /// A tar that was uploaded.
    Upload {
        /// Its id.
        id: ContextId,
    },
    /// No files.
    Empty,
    /// Nothing is built: this image of a registry is pushed elsewhere.
    Image {
        /// Its name, with the digest.
        reference: String,
    },
}

/// A secret by the names that the build and the operator give it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretReference {
    /// The name by which the Dockerfile asks for it (`--mount=type=secret,id=…`).
    #[schema(example = "pip")]
    pub(crate) id: String,
    /// The name of the operator's secret; the same as `id` where it is absent.
    #[schema(example = "pip-conf")]
    pub(crate) name: Option<String>,
}

impl SecretReference {
    /// The name of the operator's secret.
    pub(crate) fn source(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

/// How earlier results are used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cache {
    /// Results are shared with builds of the same scope only. With tenants, a scope is
    /// always within its tenant.
    pub(crate) scope: Option<String>,
    /// Runs every step, also those whose result is known.
    pub(crate) disabled: bool,
    /// Names in registries, `registry/repository:tag`, where results of steps are looked for
    /// that the service does not have. One that is not there does no harm.
    #[schema(example = json!(["registry:5000/cache:demo"]))]
    pub(crate) from: Vec<String>,
    /// Names in registries under which results of steps are left for others. The image does
    /// not wait for it, and a failure is a warning in the log.
    #[schema(example = json!(["registry:5000/cache:demo"]))]
    pub(crate) to: Vec<String>,
    /// What is left there.
    pub(crate) mode: CacheMode,
}

/// What of a build is left in a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CacheMode {
    /// The steps whose layers are in the image.
    #[default]
    Min,
    /// Every step.
    Max,
}

/// What a build may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BuildLimits {
    /// Memory of all its processes together, in bytes; a build that takes more is stopped.
    pub(crate) memory_bytes: Option<u64>,
}
