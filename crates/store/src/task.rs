//! Tasks and their states; pure values, no I/O.
//!
//! The four states and their texts are a contract with Darwin's clients, which understand
//! no fifth one: a cancelled or timed-out build is `failed` with a reason.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ContextId, FailureCode, Pushed};

/// The name of a task: `id-` and 32 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TaskId(String);

impl TaskId {
    /// Makes a new random name.
    pub fn random() -> Self {
        Self(format!("id-{}", uuid::Uuid::new_v4().simple()))
    }

    /// Gives the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A new random name.
impl Default for TaskId {
    fn default() -> Self {
        Self::random()
    }
}

/// A text is not a task id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a task id is `id-` and 32 lowercase hexadecimal digits")]
pub struct InvalidTaskId;

impl FromStr for TaskId {
    type Err = InvalidTaskId;

    fn from_str(text: &str) -> Result<Self, InvalidTaskId> {
        let digits = text.strip_prefix("id-").ok_or(InvalidTaskId)?;
        let valid = digits.len() == 32
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self(text.to_owned())).ok_or(InvalidTaskId)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Queued; nobody builds it.
    Waiting,
    /// Somebody holds its lease and builds it.
    Running,
    /// The registry has confirmed the image.
    Completed,
    /// There is no image; the task's error says why.
    Failed,
}

impl TaskState {
    /// Every state, in the order in which a task goes through them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Running, Self::Completed, Self::Failed];

    /// Gives the text that the table and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// Reads the text that the table and the API use.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Tells whether the task is over.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// Gives `next` if a task may go there from here.
    ///
    /// `running` goes back to `waiting` when its owner gave the lease up or lost it.
    pub fn advance(self, next: Self) -> Result<Self, IllegalMove> {
        use TaskState::{Completed, Failed, Running, Waiting};
        match (self, next) {
            (Waiting, Running | Failed) | (Running, Waiting | Completed | Failed) => Ok(next),
            (from, to) => Err(IllegalMove { from, to }),
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task cannot go from one state to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {from} task cannot become {to}")]
pub struct IllegalMove {
    /// Where the task stands.
    pub from: TaskState,
    /// Where it was to go.
    pub to: TaskState,
}

/// What is to be built; stored as JSON with exactly these keys, empty where absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildParams {
    /// URL of the Git repository.
    pub git_repo: String,
    /// Branch or tag; empty for the remote's default branch.
    pub branch: String,
    /// Directory of the repository that is the context; empty for its root.
    pub app_dir: String,
    /// Where an uploaded Dockerfile was kept; empty when the repository's is used.
    pub docker_file_path: String,
}

/// A task that is to be queued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTask {
    /// Its name, chosen by the caller because `logs_url` contains it.
    pub id: TaskId,
    /// The application.
    pub app_name: String,
    /// Tag of the image.
    pub image_tag: String,
    /// Where the log can be read.
    pub logs_url: String,
    /// What is to be built.
    pub params: BuildParams,
    /// Text of the Dockerfile that replaces the repository's.
    pub dockerfile: Option<String>,
    /// What is to be built beyond `params`: JSON of the service, which the table only keeps.
    pub request: Option<String>,
    /// The uploaded context that it needs.
    pub context: Option<ContextId>,
    /// Who asked for it, where the service knows several tenants.
    pub tenant: Option<String>,
    /// The trace that it belongs to (W3C Trace Context, `traceparent`).
    pub trace_parent: Option<String>,
    /// The beginning of its log.
    pub log: String,
}

/// A row of the task table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub id: TaskId,
    /// The application.
    pub app_name: String,
    /// Tag of the image.
    pub image_tag: String,
    /// Where the log can be read.
    pub logs_url: String,
    /// What is to be built.
    pub params: BuildParams,
    /// Where it stands.
    pub state: TaskState,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
    /// When its row was last changed.
    pub updated_at: DateTime<Utc>,
    /// How often a build of it was begun.
    pub attempts: u32,
    /// When its latest build began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it became completed or failed.
    pub ended_at: Option<DateTime<Utc>>,
    /// Why it failed.
    pub error: Option<String>,
    /// The commit that was built.
    pub commit: Option<String>,
    /// Digest of the manifest that the registry confirmed.
    pub digest: Option<String>,
    /// What kind of failure `error` is.
    pub error_code: Option<FailureCode>,
    /// The names that registries have confirmed.
    pub pushed: Vec<Pushed>,
    /// What is to be built beyond `params`, as [`NewTask::request`] had it.
    pub request: Option<String>,
    /// The uploaded context that it needs.
    pub context: Option<ContextId>,
    /// Who asked for it.
    pub tenant: Option<String>,
    /// The trace that it belongs to.
    pub trace_parent: Option<String>,
    /// The replica that builds it.
    pub worker: Option<String>,
    /// Why it is to end, where somebody asked for that.
    pub cancel_reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_form() {
        let id = TaskId::random();
        assert_eq!(id.as_str().parse::<TaskId>(), Ok(id.clone()));
        for wrong in [
            "",
            "id-",
            "id-0123456789abcdef0123456789abcde",
            "id-0123456789abcdef0123456789abcdef0",
            "id-0123456789ABCDEF0123456789ABCDEF",
            "ID-0123456789abcdef0123456789abcdef",
            "id-../../../../../../etc/passwd0000",
            "0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(wrong.parse::<TaskId>(), Err(InvalidTaskId), "{wrong}");
        }
    }

    #[test]
    fn states_move_only_forward_or_back_to_the_queue() {
        use TaskState::{Completed, Failed, Running, Waiting};
        let legal = [
            (Waiting, Running),
            (Waiting, Failed),
            (Running, Waiting),
            (Running, Completed),
            (Running, Failed),
        ];
        for from in TaskState::ALL {
            for to in TaskState::ALL {
                assert_eq!(
                    from.advance(to).is_ok(),
                    legal.contains(&(from, to)),
                    "{from} to {to}"
                );
            }
        }
    }

    #[test]
    fn state_texts_are_the_contract() {
        let texts = TaskState::ALL.map(TaskState::as_str);
        assert_eq!(texts, ["waiting", "running", "completed", "failed"]);
        // The column is VARCHAR(9): a longer text would not fit an existing table.
        assert!(texts.iter().all(|text| text.len() <= 9));
        assert_eq!(TaskState::from_text("cancelled"), None);
    }

    #[test]
    fn params_are_four_strings() {
        let json = serde_json::to_string(&BuildParams::default()).unwrap();
        assert_eq!(
            json,
            r#"{"git_repo":"","branch":"","app_dir":"","docker_file_path":""}"#
        );
    }
}
