//! A build as `/v1` shows it.

use chrono::{DateTime, Utc};
use ocibuild_store::{FailureCode, Pushed, Step, Task};
use serde::Serialize;
use utoipa::ToSchema;

use crate::request::{ContextKind, Request};

/// A build.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Build {
    /// `id-` and 32 hexadecimal digits.
    id: String,
    app_name: String,
    image_tag: String,
    /// Who asked for it, where the service knows several tenants.
    tenant: Option<String>,
    /// `waiting`, `running`, `completed` or `failed`.
    #[schema(example = "running")]
    status: &'static str,
    /// Somebody wants it to end, for this reason.
    cancel_reason: Option<String>,
    /// How many builds come before it, while it waits.
    queue_position: Option<u64>,
    /// How often it was begun.
    attempts: u32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// When its latest attempt began.
    started_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    /// How long its latest attempt has taken, in milliseconds.
    duration_ms: Option<u64>,
    /// The replica that builds it.
    worker: Option<String>,
    source: BuildSource,
    /// The commit that is built.
    commit: Option<String>,
    /// Digest of the manifest that every registry has confirmed.
    digest: Option<String>,
    /// The names that registries have confirmed.
    images: Vec<ImageName>,
    /// Why it failed.
    error: Option<BuildError>,
    /// The log as text.
    logs_url: String,
    /// Its steps, where one build is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<BuildStep>>,
}

/// Where the files of a build come from.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum BuildSource {
    /// A Git repository.
    Git {
        url: String,
        #[serde(rename = "ref")]
        reference: Option<String>,
        subdir: Option<String>,
    },
    /// A file behind an HTTP URL.
    Http { url: String },
    /// An OCI artifact.
    Oci { reference: String },
    /// A tar that was uploaded.
    Upload { id: String },
    /// No files.
    Empty,
    /// An image that is pushed elsewhere.
    Image { reference: String },
}

/// A name that a registry has confirmed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImageName {
    reference: String,
    digest: String,
}

/// Why a build failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuildError {
    /// `user`, `command`, `registry`, `sandbox`, `out_of_memory`, `timeout`, `cancelled`,
    /// `abandoned` or `internal`.
    #[schema(example = "command")]
    code: &'static str,
    message: String,
}

/// A step of a build.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuildStep {
    number: u32,
    #[schema(example = "[stage 2/5] RUN make")]
    name: String,
    /// `running`, `done`, `cached` or `failed`.
    #[schema(example = "cached")]
    state: &'static str,
    /// When it began, in milliseconds since the attempt did.
    begin_ms: u64,
    /// How long it took; absent while it runs.
    duration_ms: Option<u64>,
    /// The layer that it made.
    layer: Option<StepLayer>,
    error: Option<String>,
}

/// The layer that a step made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StepLayer {
    digest: String,
    /// In bytes.
    size: u64,
}

impl Build {
    /// Adds its steps.
    pub(super) fn with_steps(self, steps: Vec<Step>) -> Self {
        Self {
            steps: Some(steps.into_iter().map(BuildStep::from).collect()),
            ..self
        }
    }

    /// Adds its place in the queue.
    pub(super) fn behind(self, queue_position: Option<u64>) -> Self {
        Self {
            queue_position,
            ..self
        }
    }
}

impl From<Task> for Build {
    fn from(task: Task) -> Self {
        let end = task.ended_at.unwrap_or_else(Utc::now);
        let duration = task
            .started_at
            .map(|start| (end - start).num_milliseconds());
        let source = source(&task);
        Self {
            status: task.state.as_str(),
            queue_position: None,
            duration_ms: duration.map(|millis| u64::try_from(millis).unwrap_or_default()),
            error: task.error.map(|message| BuildError {
                code: task.error_code.unwrap_or(FailureCode::Internal).as_str(),
                message,
            }),
            images: task.pushed.into_iter().map(ImageName::from).collect(),
            id: task.id.to_string(),
            app_name: task.app_name,
            image_tag: task.image_tag,
            tenant: task.tenant,
            cancel_reason: task.cancel_reason,
            attempts: task.attempts,
            created_at: task.created_at,
            updated_at: task.updated_at,
            started_at: task.started_at,
            ended_at: task.ended_at,
            worker: task.worker,
            source,
            commit: task.commit,
            digest: task.digest,
            logs_url: task.logs_url,
            steps: None,
        }
    }
}

/// Tells where the files of a task come from.
pub(crate) fn source(task: &Task) -> BuildSource {
    let request = task.request.as_deref().map(serde_json::from_str::<Request>);
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match request.and_then(Result::ok).unwrap_or_default().context {
        ContextKind::Git => BuildSource::Git {
            url: task.params.git_repo.clone(),
            reference: text(&task.params.branch),
            subdir: text(&task.params.app_dir),
        },
        ContextKind::Http { url } => BuildSource::Http { url },
        ContextKind::Oci { reference } => BuildSource::Oci { reference },
        ContextKind::Upload { id } => BuildSource::Upload { id: id.to_string() },
        ContextKind::Empty => BuildSource::Empty,
        ContextKind::Image { reference } => BuildSource::Image { reference },
    }
}

impl From<Pushed> for ImageName {
    fn from(pushed: Pushed) -> Self {
        let Pushed { reference, digest } = pushed;
        Self { reference, digest }
    }
}

impl From<Step> for BuildStep {
    fn from(step: Step) -> Self {
        Self {
            number: step.number,
            name: step.name,
            state: step.state.as_str(),
            begin_ms: step.begin_millis,
            duration_ms: step.millis,
            layer: step.layer.map(|digest| StepLayer {
                digest,
                size: step.layer_size.unwrap_or_default(),
            }),
            error: step.error,
        }
    }
}
