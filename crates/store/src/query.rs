//! Questions about many tasks; pure values.

use std::time::Duration;

use crate::{Task, TaskState};

/// Which tasks are wanted, and which page of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// Only those of this tenant.
    pub tenant: Option<String>,
    /// Only those in this state.
    pub state: Option<TaskState>,
    /// Only those of this application.
    pub app_name: Option<String>,
    /// Only those with this tag.
    pub image_tag: Option<String>,
    /// Oldest or newest first.
    pub order: Order,
    /// How many at most.
    pub limit: u32,
    /// Those behind this place: what [`Page::next`] of the page before said.
    pub after: Option<Cursor>,
}

/// Which tasks come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The oldest.
    Oldest,
    /// The newest.
    #[default]
    Newest,
}

/// A place in the list of tasks: behind one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// When that task was queued, in microseconds since 1970.
    pub created_micros: i64,
    /// Its id, which decides among those of one moment.
    pub task_id: String,
}

/// Some tasks, and where the next ones begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// The place behind the last one, if more come.
    pub next: Option<Cursor>,
}

/// How long the queue is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Tasks that wait.
    pub waiting: u64,
    /// Tasks that are being built.
    pub running: u64,
    /// How long the oldest waiting one has waited.
    pub oldest_waiting: Option<Duration>,
}
